"""The command line: what it writes, and what it says when something is wrong."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from p2f_lib import cli, reconstruction
from p2f_lib.images import read_image, write_image
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.unet import NetworkConfig, UNet, save_unet
from tests.oracle import STUB_UNET, Scene
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def scene(model, monkeypatch):
    """A photo of two people, and a command that sees them rightly."""
    scene = Scene.of(model, faces=[(0.25, 0.5, 20), (0.75, 0.5, -20)])
    monkeypatch.setattr(reconstruction, "predict", scene.predict)
    monkeypatch.setattr(
        Reconstructor,
        "from_pretrained",
        classmethod(lambda cls, *_, **__: cls(model, STUB_UNET, scene.detector)),
    )
    return scene


@pytest.fixture
def photo(scene, tmp_path):
    write_image(tmp_path / "photo.png", scene.photo)
    return tmp_path / "photo.png"


def run(capsys, *argv):
    """Exit status, standard output lines, standard error lines."""
    status = cli.main(["reconstruct", *map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out.splitlines(), err.splitlines()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_photo(capsys, scene, photo, tmp_path):
    out = tmp_path / "new" / "out"
    status, lines, errors = run(capsys, photo, "--out", out)
    assert (status, errors) == (0, [])
    assert len(lines) == 1
    assert "2 faces" in lines[0]
    ends = (".ply", ".glb", ".obj", ".mtl", "_texture.png")
    expected = {f"{stem}{end}" for stem in ("photo", "photo_2") for end in ends}
    assert set(names(out)) == expected | {"photo.json"}
    document = json.loads((out / "photo.json").read_text())
    assert (document["width"], document["height"]) == (scene.width, scene.height)
    assert document["photo"] == str(photo)
    assert len(document["faces"]) == 2
    for face, person in zip(document["faces"], scene.people[::-1], strict=True):
        apart = np.array(face["landmarks"]["ibug68"]) - person.landmarks()
        assert np.linalg.norm(apart, axis=1).mean() < 1.0
        assert {"pose", "box", "confidence"} <= set(face)
        assert (out / face["mesh"]).is_file()
        assert (out / face["glb"]).read_bytes().startswith(b"glTF")
        assert (out / face["point_cloud"]).is_file()


def test_box_replaces_the_detector(capsys, scene, photo, tmp_path):
    box = scene.people[0].box.as_tuple()
    status, lines, _ = run(capsys, photo, "--out", tmp_path / "out", "--box", *box)
    assert status == 0
    assert "1 face " in lines[0]
    (face,) = json.loads((tmp_path / "out" / "photo.json").read_text())["faces"]
    assert face["box"] == pytest.approx(box, abs=1e-3)


def test_wrong_photos_do_not_stop_the_others(capsys, scene, photo, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("words")
    wrong = ["empty.jpg", "text.jpg", "missing.jpg"]
    status, lines, errors = run(
        capsys, *(tmp_path / name for name in wrong), photo, "--out", tmp_path / "out"
    )
    assert status == 1
    assert len(lines) == 1
    assert len(errors) == 3
    for name, error in zip(wrong, errors, strict=True):
        assert name in error
        assert error.startswith("p2f: ")
    assert (tmp_path / "out" / "photo.json").is_file()


def test_a_box_outside_one_photo_fits_another(capsys, scene, photo, tmp_path):
    write_image(tmp_path / "small.png", scene.photo[:40, :40])
    box = scene.people[1].box.as_tuple()
    status, lines, errors = run(
        capsys, tmp_path / "small.png", photo, "--out", tmp_path / "out", "--box", *box
    )
    assert status == 1
    assert len(lines) == 1
    assert len(errors) == 1
    assert "outside the picture of 40 x 40" in errors[0]
    assert "small.png" in errors[0]


def test_no_face_is_a_sentence(capsys, model, scene, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Reconstructor,
        "from_pretrained",
        classmethod(lambda cls, *_, **__: cls(model, STUB_UNET, lambda image: [])),
    )
    status, lines, errors = run(capsys, photo, "--out", tmp_path / "out")
    assert status == 1
    assert not lines
    assert len(errors) == 1
    assert "No face" in errors[0]
    assert "photo.png" in errors[0]
    assert not names(tmp_path / "out")


@pytest.mark.parametrize("error", [RuntimeError("odd\nthing"), MemoryError(), KeyError("x")])
def test_the_unexpected_is_a_sentence_too(capsys, scene, photo, tmp_path, monkeypatch, error):
    shutil.copy(photo, tmp_path / "second.png")
    honest = Reconstructor.__call__

    def stumble(self, image, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 1:
            raise error
        return honest(self, image)

    monkeypatch.setattr(Reconstructor, "__call__", stumble)
    status, lines, errors = run(capsys, photo, tmp_path / "second.png", "--out", tmp_path / "out")
    assert status == 1
    assert len(lines) == len(errors) == 1
    assert type(error).__name__ in errors[0]


def test_folders_stand_for_their_pictures(capsys, scene, photo, tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("b.png", "a.PNG"):
        shutil.copy(photo, folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "deeper.png").mkdir()
    status, lines, errors = run(capsys, folder, folder / "b.png", "--out", folder)
    assert (status, errors) == (0, [])
    assert ["a.PNG" in lines[0], "b.png" in lines[1]] == [True, True]
    assert len(lines) == 2
    # Once more, with results among the photos: meshes' textures are no photos.
    again = run(capsys, folder, "--out", folder)
    assert again == (0, lines, [])


def test_an_empty_folder_is_an_error(capsys, scene, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    status, lines, errors = run(capsys, tmp_path / "empty", photo, "--out", tmp_path / "out")
    assert status == 1
    assert len(lines) == len(errors) == 1
    assert "no picture" in errors[0]
    assert run(capsys, tmp_path / "empty", "--out", tmp_path / "out")[0] == 1


def test_same_names_do_not_overwrite_each_other(capsys, scene, photo, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        shutil.copy(photo, folder / "x.png")
    shutil.copy(photo, other / "X.webp")
    shutil.copy(photo, other / "x_2.png")  # the name of a second face
    photos = [one / "x.png", other / "x.png", other / "X.webp", other / "x_2.png"]
    status, lines, errors = run(capsys, *photos, "--out", tmp_path / "out")
    assert (status, errors) == (0, [])
    assert len(lines) == 4
    documents = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json")]
    assert sorted(d["photo"] for d in documents) == sorted(map(str, photos))
    meshes = [face["mesh"] for document in documents for face in document["faces"]]
    assert len({name.casefold() for name in meshes}) == len(meshes) == 8


def test_a_resumed_run_skips_what_is_done(capsys, scene, photo, tmp_path):
    (tmp_path / "photos" / "photo").mkdir(parents=True)
    copies = [tmp_path / "photos" / "photo_2.png", tmp_path / "photos" / "photo" / "photo.png"]
    for copy in copies:
        write_image(copy, scene.photo)
    out = tmp_path / "out"
    words = [photo, *copies, "--out", out]
    assert run(capsys, *words)[0] == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "photo_2.json").write_text("{")  # where the run was killed, as it were
    (out / "photo_2.ply").unlink()
    status, lines, errors = run(capsys, *words, "--resume")
    assert (status, errors) == (0, [])
    assert [line.endswith("done before") for line in lines] == [True, False, True]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    (tmp_path / "elsewhere").mkdir()
    photo = photo.replace(tmp_path / "elsewhere" / "photo.png")  # another photo of the same name
    _, lines, _ = run(capsys, photo, *copies, "--out", out, "--resume")
    assert [line.endswith("done before") for line in lines] == [False, True, True]


def test_photos_are_never_overwritten(capsys, scene, photo, tmp_path):
    shutil.copy(photo, tmp_path / "photo_texture.png")
    shutil.copy(photo, tmp_path / "photo.json")  # a picture by its content
    photos = [photo, tmp_path / "photo_texture.png", tmp_path / "photo.json"]
    before = [path.read_bytes() for path in photos]
    status, lines, errors = run(capsys, *photos, "--out", tmp_path)
    assert (status, errors) == (0, [])
    assert len(lines) == 3
    assert [path.read_bytes() for path in photos] == before


def test_unusable_out(capsys, scene, photo, tmp_path):
    status, lines, errors = run(capsys, photo, "--out", photo)
    assert status == 1
    assert not lines
    assert len(errors) == 1
    assert "Cannot make the folder" in errors[0]


def test_odd_file_names(capsys, scene, photo, tmp_path):
    odd = [tmp_path / "two\nlines.png", tmp_path / "ü ö.png", tmp_path / "-x.png"]
    odd.append(tmp_path / os.fsdecode(b"\xff.png"))  # no UTF-8
    for path in odd:
        shutil.copy(photo, path)
    status, _, errors = run(capsys, *odd, "--out", tmp_path / "out")
    assert (status, errors) == (0, [])
    assert len(list((tmp_path / "out").glob("*.json"))) == 4
    for texture in (tmp_path / "out").glob("*_texture.png"):
        assert read_image(texture).any()


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["reconstruct"],
        ["reconstruct", "photo.jpg"],
        ["reconstruct", "--out", "x"],
        ["reconstruct", "photo.jpg", "--out", "x", "--box", "1", "2", "3"],
        ["reconstruct", "photo.jpg", "--out", "x", "--box", "1", "2", "3", "four"],
        ["reconstruct", "photo.jpg", "--out", "x", "--frobnicate"],
    ],
)
def test_usage_errors_exit_with_2(capsys, argv):
    with pytest.raises(SystemExit) as info:
        cli.main(argv)
    assert info.value.code == 2
    assert "usage: p2f" in capsys.readouterr().err


def test_commands_of_the_readme_and_the_guides_are_understood():
    """Every line of their bash blocks that begins with p2f is a command that the parser takes."""
    root = Path(__file__).resolve().parents[1]
    pages = [root / "README.md", *root.glob("docs/*.md"), *root.glob("docs/guides/*.md")]
    text = "\n".join(page.read_text() for page in pages)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("p2f ")]
    commands = {
        cli.make_parser().parse_args(shlex.split(line, comments=True)[1:]).run for line in lines
    }
    assert len(commands) >= 8


def test_help_needs_no_network(capsys):
    with pytest.raises(SystemExit) as info:
        cli.main(["reconstruct", "--help"])
    assert info.value.code == 0
    assert "NAME_texture.png" in capsys.readouterr().out
    with pytest.raises(SystemExit) as info:
        cli.main(["track", "--help"])
    assert info.value.code == 0
    assert "projected_image_space/NAME/000001.ljson" in capsys.readouterr().out


def test_interrupt(capsys, scene, photo, tmp_path, monkeypatch):
    def interrupt(self, image):
        raise KeyboardInterrupt

    monkeypatch.setattr(Reconstructor, "__call__", interrupt)
    status, _, errors = run(capsys, photo, "--out", tmp_path / "out")
    assert (status, errors) == (130, ["p2f: stopped."])


# -------------------------------------------------------------------------- real weights


def test_weights_that_are_missing_or_do_not_match(capsys, model, tmp_path, monkeypatch):
    write_image(tmp_path / "photo.png", np.zeros((64, 64, 3), np.uint8))
    weights = tmp_path / "weights"
    monkeypatch.setenv("P2F_HOME", str(weights))

    def fails_with(*words):
        status, lines, errors = run(
            capsys, tmp_path / "photo.png", "--out", tmp_path / "out", "--device", "cpu"
        )
        assert (status, lines, len(errors)) == (1, [], 1)
        assert all(word in errors[0] for word in words)

    fails_with("make repro", "dvc pull")

    weights.mkdir()
    model.save(weights / "face_model.safetensors")
    torch.manual_seed(0)
    unet = UNet(NetworkConfig(input_size=32, width=2, depth=3))
    save_unet(weights / "unet.safetensors", unet, face_model_checksum="0" * 64)
    fails_with("checksum", "make repro")

    save_unet(weights / "unet.safetensors", unet)
    fails_with("photo.png", "No face")  # a black picture, and everything else in order


def test_as_a_process_of_its_own(tmp_path):
    (tmp_path / "photo.png").touch()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "p2f_lib.cli", "reconstruct", tmp_path / "photo.png"),
            *("--out", tmp_path, "--weights", tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "make repro" in done.stderr


def test_importing_the_package_does_not_import_torch():
    code = "import sys, p2f_lib, p2f_lib.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- poses, and one person


def command(capsys, *argv):
    status = cli.main([*map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out.splitlines(), err.splitlines()


def test_poses_go_into_a_table_and_a_second_run_goes_on(capsys, scene, photo, tmp_path):
    table, photos = tmp_path / "poses.csv", tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(photo, photos / name)
    (photos / "broken.png").write_text("words")
    status, lines, errors = command(capsys, "pose", photos, "--out", table)
    assert status == 1
    assert len(lines) == 2
    assert len(errors) == 1
    assert "broken.png" in errors[0]
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    assert header[:5] == ["photo", "yaw", "pitch", "roll", "confidence"]
    assert [row[0] for row in rows] == [str(photos / name) for name in ("a.png", "b.png")]
    assert abs(abs(float(rows[0][1])) - 20) < 3

    shutil.copy(photo, photos / "c.png")
    (photos / "broken.png").unlink()
    before = table.read_text()
    table.write_text(before + f"{photos / 'c.png'},12")  # killed in the middle of a line
    status, lines, errors = command(capsys, "pose", photos, "--out", table)
    assert (status, errors) == (0, [])
    assert lines[0].endswith("has 2 photos already; 1 are left.")
    assert table.read_text().startswith(before)
    assert len(table.read_text().splitlines()) == 4


def test_a_table_that_is_still_empty_is_begun(capsys, scene, photo, tmp_path):
    table = tmp_path / "new" / "poses.csv"
    for _ in range(2):
        assert command(capsys, "pose", photo, "--out", table)[0] == 0
        assert len(table.read_text().splitlines()) == 2
        table.write_text("")


def test_another_table_is_not_written_to(capsys, scene, photo, tmp_path):
    table = tmp_path / "poses.csv"
    table.write_text("a,b\n1,2\n")
    status, _, errors = command(capsys, "pose", photo, "--out", table)
    assert status == 1
    assert "is no table of poses" in errors[0]
    assert table.read_text() == "a,b\n1,2\n"


def test_photos_may_stand_in_a_list(capsys, scene, photo, tmp_path):
    (tmp_path / "list.txt").write_text(f"{photo}\n")
    status, lines, _ = command(
        capsys, "pose", f"@{tmp_path / 'list.txt'}", "--out", tmp_path / "poses.csv"
    )
    assert status == 0
    assert str(photo) in lines[0]


def test_photos_of_one_person_share_a_shape(capsys, scene, photo, tmp_path):
    other = tmp_path / "other.png"
    shutil.copy(photo, other)
    out = tmp_path / "out"
    status, lines, errors = command(capsys, "fit", photo, other, "--out", out, "--name", "she")
    assert (status, errors) == (0, [])
    assert lines[-1].startswith("2 photos -> ")
    assert names(out) == ["she.glb", "she.json", "she.mtl", "she.obj", "she_texture.png"]
    document = json.loads((out / "she.json").read_text())
    assert list(document["photos"]) == [str(photo), str(other)]
    again = command(capsys, "fit", photo, "--out", out, "--name", photo.stem)[1][-1]
    assert again.endswith(f"{photo.stem}.glb")
    in_place = command(capsys, "fit", photo, "--out", photo.parent, "--name", photo.stem)[1][-1]
    assert in_place.endswith(f"{photo.stem}.glb")
    assert photo.is_file()
    for face in document["photos"].values():
        np.testing.assert_allclose(face["shape"], document["shape"], atol=1e-5)


def test_a_person_without_any_face_writes_nothing(capsys, scene, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("words")
    status, lines, errors = command(capsys, "fit", broken, "--out", tmp_path / "out")
    assert (status, lines) == (1, [])
    assert "broken.png" in errors[0]
    assert not (tmp_path / "out").exists()
