"""What the page does, without a browser: its widgets are plain objects."""

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image

from p2f_lib import explore, figures
from p2f_lib.errors import P2FError
from p2f_lib.explore import EYE, Explorer
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.robustness import bundled_picture
from tests.test_pipeline import ROOT

RELEASE = ROOT / "data" / "release"


@pytest.fixture(scope="module")
def opened():
    """The page after both portraits were chosen."""
    if not (RELEASE / "unet.safetensors").is_file():
        pytest.skip("needs the released weights: dvc pull data.dvc")
    explorer = Explorer(Reconstructor.from_pretrained(RELEASE, variant="fast"))
    for name in ("astronaut", "grace_hopper"):
        explorer.bundled.value = name
    return explorer


@pytest.fixture
def page(opened):
    opened.second.value, opened.markup.value = None, "no landmarks"
    opened.chooser.value = 0
    opened.show(0)
    return opened


def mesh_on(page) -> np.ndarray:
    """The (V, 3) vertices that the browser has been sent; Plotly's z is up, its y goes away."""
    trace = page._trace("mesh")
    return np.stack([trace.x, trace.z, -np.asarray(trace.y)], axis=1)


def uploaded(name: str, content: bytes) -> dict:
    return {"new": ({"name": name, "content": memoryview(content)},)}


def test_shows_the_faces_of_photos_with_all_stages(page):
    assert [name for name, _ in page.chooser.options] == ["astronaut", "grace_hopper"]
    assert page.status.value.count("astronaut: yaw") == 1
    assert page.stages.value.count("<img") == 6
    assert np.array_equal(mesh_on(page), page.faces[0].vertices)
    page.chooser.value = 1
    assert "grace_hopper: yaw" in page.status.value
    assert np.array_equal(mesh_on(page), page.faces[1].vertices)


def test_sliders_move_the_mesh_as_the_model_says(page):
    face, name = page.faces[0], "jawOpen"
    slider = next(s for s in page.expression if s.description == name)
    slider.value = 0.7
    page.shape[1].value = -1.5
    shape, expression = np.array(face.shape, float), np.array(face.expression, float)
    expression[face.model.expression_names.index(name)] = 0.7
    shape[1] = -1.5 * face.model.shape_sigma[1]
    # Sliders stand at multiples of their steps only when they were moved.
    assert np.abs(page.vertices - face.model.vertices(shape, expression)).max() < 1e-3
    assert np.array_equal(mesh_on(page), page.vertices)
    page.fitted.click()
    assert np.abs(page.vertices - face.vertices).max() < 1e-4
    page.mean.click()
    assert np.abs(page.vertices - face.model.mean).max() < 1e-4


def test_turning_the_view_moves_the_eye_not_the_mesh(page):
    before = page.vertices.copy()
    page.yaw.value, page.pitch.value = 90 - 15, 0
    eye = page.figure.layout.scene.camera.eye
    # From before the face, the eye goes to the left when the nose shall point to the right.
    assert eye.x < eye.y < 0
    assert np.hypot(eye.x, eye.y) == pytest.approx(EYE)
    assert np.array_equal(page.vertices, before)
    page.show(0)
    assert page.yaw.value == 0
    eye = page.figure.layout.scene.camera.eye
    assert (eye.x, eye.y) == (0, -EYE)


def test_points_and_mesh_take_turns(page):
    page.view.value = "points"
    shown = {trace.name: trace.visible for trace in page.figure.data}
    assert (shown["mesh"], shown["points"]) == (False, True)
    assert len(page._trace("points").x) == page.faces[0].valid.sum()
    page.view.value = "mesh"
    assert page._trace("mesh").visible


def test_a_landmark_tells_its_vertex(page):
    page.markup.value = "ibug68"
    face, number = page.faces[0], 30
    vertex = face.model.landmarks["ibug68"][number]
    assert len(page._trace("landmarks").x) == 68
    page._tell_landmark(None, SimpleNamespace(point_inds=[number]), None)
    u, v = face.landmarks("ibug68")[number]
    assert f"landmark {number}: vertex {vertex}," in page.detail.value
    assert f"pixel ({u:.1f}, {v:.1f}), seen in the photo" in page.detail.value


def test_comparison_colours_by_distance(page):
    page.second.value = 1
    distance = np.linalg.norm(page.faces[1].vertices - page.faces[0].vertices, axis=1)
    assert np.allclose(page._trace("mesh").intensity, distance)
    assert f"{distance.mean():.1f} mm on average" in page.status.value
    page.second.value = None
    assert page._trace("mesh").intensity is None


def test_one_shape_for_several_photos():
    explorer = Explorer(Reconstructor.from_pretrained(RELEASE, variant="fast"))
    image = bundled_picture("astronaut")
    for name, picture in (("one", image), ("other", np.ascontiguousarray(image[:, ::-1]))):
        explorer.open(picture, name)
    explorer.several.value = (0,)
    explorer.share.click()
    assert "Choose two photos of one person or more." in explorer.status.value
    shapes = [face.shape for face in explorer.faces]
    assert not np.allclose(*shapes)
    explorer.several.value = (0, 1)
    explorer.share.click()
    assert np.array_equal(explorer.faces[0].shape, explorer.faces[1].shape)
    assert "One shape for 2 photos" in explorer.status.value
    assert np.abs(explorer.vertices - explorer.faces[0].vertices).max() < 1e-4


def test_exports_the_mesh_as_the_sliders_have_it(page):
    page.expression[0].value = 0.6
    name, content = page.export_file("glb")
    (mesh,) = trimesh.load(io.BytesIO(content), file_type="glb").geometry.values()
    low, high = mesh.vertices.min(axis=0) * 1000, mesh.vertices.max(axis=0) * 1000
    assert name == "face.glb"
    assert np.allclose(low, page.vertices.min(axis=0), atol=0.01)
    assert np.allclose(high, page.vertices.max(axis=0), atol=0.01)
    name, content = page.export_file("obj")
    assert name == "face.zip"
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert names == ["face.mtl", "face.obj", "face_texture.png"]
    page.format.value = "json"
    page.export.click()
    assert 'download="face.json"' in page.link.value


def test_trouble_becomes_a_sentence_and_loses_nothing(page, tmp_path):
    for change, said in (
        (uploaded("rubbish.jpg", b"abc"), "rubbish.jpg is not a picture"),
        (uploaded("empty.png", b""), "empty.png is empty"),
        (uploaded("<b>.png", b"x"), "&lt;b&gt;.png is not a picture"),
    ):
        page._guarded(page._open_uploads)(change)
        assert said in page.status.value
        assert "#b00020" in page.status.value
    page.path.value = str(tmp_path / "none.jpg")
    assert "There is no file" in page.status.value
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer, "PNG")
    page._guarded(page._open_uploads)(uploaded("black.png", buffer.getvalue()))
    assert "No face was found in black.png." in page.status.value
    assert len(page.faces) == 2
    assert page.progress.layout.display == "none"


def test_large_uploads_are_refused(monkeypatch):
    monkeypatch.setattr(explore, "MAX_UPLOAD", 2**20)
    with pytest.raises(P2FError, match=r"big.png has 2 MB, more than the 1 allowed"):
        explore._decoded(bytes(2 * 2**20), "big.png")


def test_uploads_open_one_after_the_other_and_are_not_kept(page):
    buffer = io.BytesIO()
    Image.fromarray(bundled_picture("astronaut")).save(buffer, "PNG")
    explorer = Explorer(page._reconstructor)
    good, bad = uploaded("good.png", buffer.getvalue()), uploaded("bad.png", b"?")
    explorer._guarded(explorer._open_uploads)({"new": bad["new"] + good["new"]})
    assert [name for name, _ in explorer.chooser.options] == ["good.png"]
    assert "bad.png is not a picture" in explorer.status.value
    assert explorer.upload.value == ()


def test_old_faces_make_room(page, monkeypatch):
    monkeypatch.setattr(explore, "MAX_FACES", 2)
    explorer = Explorer(page._reconstructor)
    for name in ("first", "second", "third"):
        explorer.open(bundled_picture("astronaut"), name)
    assert [name for name, _ in explorer.chooser.options] == ["second", "third"]
    assert explorer.chooser.value == 1
    assert "third: yaw" in explorer.status.value


def test_without_a_photo_buttons_say_so():
    explorer = Explorer(reconstructor=object())
    for button in (explorer.fitted, explorer.mean, explorer.export):
        explorer.status.value = ""
        button.click()
        assert "Choose a photo first." in explorer.status.value


def test_stages_are_uint8_squares(page):
    pictures = figures.stages(page.faces[0], size=60)
    assert len({title for title, _ in pictures}) == 6
    for _, picture in pictures:
        assert picture.shape == (60, 60, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 10
