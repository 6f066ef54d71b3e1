"""Clips gone through by every method: with a network that can't err, with gaps, with bad files."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from p2f_lib import clip_evaluation, evaluation, reconstruction
from p2f_lib.clip_evaluation import (
    AFFINE,
    CHOSEN,
    MEAN_FACE,
    ONE_SHAPE,
    ORACLE,
    PLAIN,
    PNCC_ALONE,
    RAW,
    THIS_RUN,
    Network,
    evaluate_clip,
    run_source,
)
from p2f_lib.datasets import menpo3d, predictions
from p2f_lib.datasets.clip_sources import ClipSource, open_source
from p2f_lib.datasets.clips import MODEL_FILE, ClipTruth, write_truth
from p2f_lib.datasets.landmark_files import write_ljson, write_pts
from p2f_lib.errors import P2FError
from p2f_lib.fitting import Fitter
from p2f_lib.images import write_image
from p2f_lib.landmarks import menpo84_to_ibug68
from p2f_lib.reconstruction import Reconstructor
from tests.oracle import STUB_UNET, Scene
from tests.toy import toy_model

N_FRAMES = 5
PARAMETERS = {
    "source": "synthetic",
    "root": "clips",
    "n_clips": None,
    "n_frames": None,
    "predictions": {},
    "variant": "full",
    "workers": 1,
    "smoothing": 3,
    "limit": 0.08,
    "limit_box": 0.05,
    "step": 1e-4,
}


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def scene(model):
    return Scene.of(model, seed=8, faces=[(0.5, 0.5, 20.0)], width=320, height=240)


@pytest.fixture(scope="module")
def root(model, scene, tmp_path_factory):
    """Two clips of pictures in which nothing moves; the second has no truth and no model space."""
    root = tmp_path_factory.mktemp("data") / "clips"
    person = scene.people[0]
    space = person.vertices[model.landmarks["menpo84"]]
    for name, count in (("001", N_FRAMES), ("002", 2)):
        folders = [root / part / name for part in (menpo3d.PROJECTED, menpo3d.MODEL)]
        pictures = root / menpo3d.VIDEOS / name / "images"
        for folder in (*folders, pictures):
            folder.mkdir(parents=True)
        for frame in range(1, count + 1):
            write_image(pictures / f"{frame:06d}.png", scene.photo)
            for folder, points in zip(folders, (person.camera.project(space), space), strict=True):
                write_ljson(folder / f"{frame:06d}.ljson", points, labels=menpo3d.LABELS)
    shutil.rmtree(root / menpo3d.MODEL / "002")
    truth = ClipTruth(
        person.shape,
        np.stack([person.expression] * N_FRAMES),
        (person.camera,) * N_FRAMES,
        scene.height,
        scene.width,
    )
    write_truth(root, "001", truth)
    model.save(root / MODEL_FILE)
    return root


@pytest.fixture
def network(model, scene, monkeypatch):
    """Sees the scene; its other landmark vertices are those of other landmarks."""
    monkeypatch.setattr(reconstruction, "predict", scene.predict)
    chosen = {markup: np.roll(rows, 1) for markup, rows in model.landmarks.items()}
    return Network(Reconstructor(model, STUB_UNET, scene.detector), model.landmarks, chosen)


def source(root):
    return ClipSource("menpo3d", root)


def error(points, run):
    return evaluation.errors_2d(points, run.truth)


def test_a_network_that_cannot_err(root, model, scene, network):
    clip, truth = source(root).read("001"), source(root).truth("001")
    run = evaluate_clip(
        clip, {THIS_RUN: network}, scene.detector, truth=truth, truth_fitter=Fitter(model)
    )
    assert (run.name, run.frames, run.still) == ("001", tuple(range(1, N_FRAMES + 1)), False)
    assert list(run.methods) == [THIS_RUN, MEAN_FACE, ORACLE]
    for method in (THIS_RUN, ORACLE):
        pixels, space = run.methods[method]
        assert error(pixels, run).max() < 0.01
        assert evaluation.errors_3d_rigid(space, run.truth_space).max() < 1.0
    assert error(run.methods[MEAN_FACE][0], run).min() > 0.02
    assert run.detected.all()
    assert run.yaw_is_true
    np.testing.assert_allclose(run.yaw, scene.people[0].camera.pose.yaw)
    assert run.notes == ()


def test_the_truth_follows_the_frames_that_are_used(root, model, scene, network):
    """Frames may be missing in the annotation, and others have no corners of the eyes."""
    rows = [0, 2, 3]
    clip, truth = source(root).read("001").take(rows), source(root).truth("001").take(rows)
    clip.projected[1] = np.nan
    cameras = [replace(camera) for camera in truth.cameras]
    cameras[1] = None  # nobody may ask for that one
    truth = replace(truth, cameras=tuple(cameras))
    run = evaluate_clip(
        clip, {THIS_RUN: network}, scene.detector, truth=truth, truth_fitter=Fitter(model)
    )
    assert run.frames == (1, 4)
    assert error(run.methods[ORACLE][0], run).max() < 0.01
    assert len(run.notes) == 1


def test_variants_differ_from_the_method_in_one_thing(root, scene, network):
    run = evaluate_clip(source(root).read("001"), {THIS_RUN: network}, scene.detector)
    assert ORACLE not in run.methods
    pixels, space = run.methods[THIS_RUN]
    made = run.variants[THIS_RUN]
    assert set(made) == {RAW, AFFINE, PNCC_ALONE, PLAIN, CHOSEN, ONE_SHAPE}
    # Nothing moves: smoothing changes nothing, and all frames have one shape already.
    np.testing.assert_allclose(made[RAW][0], pixels, atol=1e-6)
    np.testing.assert_allclose(made[ONE_SHAPE][1], space, atol=0.5)
    np.testing.assert_array_equal(made[PLAIN][1], space)
    np.testing.assert_array_equal(made[CHOSEN][1], np.roll(space, 1, axis=1))
    np.testing.assert_array_equal(made[AFFINE][1], space)
    assert 0 < error(made[AFFINE][0], run).max() < 0.1
    alone = error(made[PNCC_ALONE][0], run)
    np.testing.assert_array_equal(np.isfinite(alone), [True, False, False, False, True])
    assert alone[0] < 0.1


def test_true_yaw_of_annotations_in_space_and_else_the_networks(root, scene, network):
    true = scene.people[0].camera.pose.yaw
    run = evaluate_clip(source(root).read("001"), {THIS_RUN: network}, scene.detector)
    assert run.yaw_is_true
    np.testing.assert_allclose(run.yaw, true, atol=4)  # of an affine camera
    run = evaluate_clip(source(root).read("002"), {THIS_RUN: network}, scene.detector)
    assert not run.yaw_is_true
    np.testing.assert_allclose(run.yaw, true, atol=2)
    assert np.isnan(run.truth_space).all()


def test_a_clip_without_any_face_is_all_gaps(root, model, scene, network):
    truth = source(root).truth("001")
    run = evaluate_clip(
        source(root).read("001"),
        {THIS_RUN: network},
        lambda image: [],
        truth=truth,
        truth_fitter=Fitter(model),
    )
    for name in (THIS_RUN, MEAN_FACE):
        assert np.isinf(error(run.methods[name][0], run)).all()
    assert error(run.methods[ORACLE][0], run).max() < 0.01
    assert not run.detected.any()
    assert all(np.isnan(pixels).all() for pixels, _ in run.variants[THIS_RUN].values())


def test_a_face_that_is_missed_for_a_while(root, scene, network):
    """The box is interpolated, and where the network sees nothing there is a gap."""
    asked = iter(range(N_FRAMES))
    seen = iter(range(N_FRAMES))

    def detector(image):
        return [] if next(asked) == 2 else scene.detector(image)

    inner = network.reconstructor

    class Forgetful:
        model, fitter = inner.model, inner.fitter

        def reconstruct(self, image, box):
            if next(seen) == 1:
                raise clip_evaluation.NoFaceError("not now")
            return inner.reconstruct(image, box)

    forgetful = Network(Forgetful(), network.plain, network.chosen)
    run = evaluate_clip(source(root).read("001"), {THIS_RUN: forgetful}, detector)
    np.testing.assert_array_equal(run.detected, [True, True, False, True, True])
    for name in (RAW, CHOSEN, ONE_SHAPE, AFFINE):
        known = np.isfinite(run.variants[THIS_RUN][name][0]).all(axis=(1, 2))
        np.testing.assert_array_equal(known, [True, False, True, True, True])
    assert np.isfinite(run.methods[MEAN_FACE][0]).all()


def test_frames_without_eyes_are_left_out_and_counted(root, scene, network):
    clip = source(root).read("002")
    projected = clip.projected.copy()
    projected[0, 52] = np.nan
    clip = menpo3d.Clip(clip.name, clip.video, clip.frames, projected, None)
    run = evaluate_clip(clip, {THIS_RUN: network}, scene.detector)
    assert run.frames == (2,)
    assert run.notes == ("1 frames of 002 have no annotated outer eye corners.",)
    with pytest.raises(P2FError, match="No frame of 002 has annotated outer eye corners"):
        evaluate_clip(clip.take([0]), {THIS_RUN: network}, scene.detector)


def test_of_several_faces_in_a_photograph_the_annotated_one_counts(model, monkeypatch, tmp_path):
    scene = Scene.of(model, seed=5, faces=[(0.25, 0.5, -30.0), (0.75, 0.5, 15.0)])
    monkeypatch.setattr(reconstruction, "predict", scene.predict)
    network = Network(Reconstructor(model, STUB_UNET), model.landmarks, model.landmarks)
    for number, person in enumerate(scene.people):
        write_image(tmp_path / f"{number}.png", scene.photo)
        write_pts(tmp_path / f"{number}.pts", person.landmarks())
    photos = ClipSource("menpo-static", tmp_path).read(".")
    run = evaluate_clip(photos, {THIS_RUN: network}, scene.detector)
    assert run.still
    assert error(run.methods[THIS_RUN][0], run).max() < 0.02
    assert run.detected.all()
    assert set(run.variants[THIS_RUN]) == {RAW, AFFINE, PNCC_ALONE, PLAIN, CHOSEN}
    np.testing.assert_array_equal(run.variants[THIS_RUN][RAW][0], run.methods[THIS_RUN][0])


# --- other trackers -----------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [True, False])
def test_foreign_predictions_of_84_points(root, scene, network, tmp_path, flat):
    clip = source(root).read("001")
    folder = tmp_path / ("001" if flat else "final_published/projected_image_space/001")
    folder.mkdir(parents=True)
    for frame in (1, 3):
        write_ljson(folder / f"{frame:06d}.ljson", clip.projected[frame - 1] + 1)
    (folder / "000004.ljson").write_text("no json")
    run = evaluate_clip(
        clip, {THIS_RUN: network}, scene.detector, foreign={"theirs": tmp_path}, smoothing=1
    )
    pixels, space = run.methods["theirs"]
    np.testing.assert_allclose(pixels[[0, 2]], clip.projected[[0, 2]] + 1, atol=1e-3)
    assert np.isnan(pixels[[1, 3, 4]]).all()
    assert np.isnan(space).all()
    (note,) = run.notes
    assert note.startswith("theirs: ")
    assert "000004.ljson is not valid JSON" in note


def test_predictions_of_68_points_and_in_space(root, tmp_path):
    clip = source(root).read("001")
    for part, points, ending in (
        ("projected_image_space", clip.projected, ".pts"),
        ("model_space", clip.model, ".ljson"),
    ):
        (tmp_path / part / "001").mkdir(parents=True)
        for frame in clip.frames:
            path = tmp_path / part / "001" / f"{frame}{ending}"  # without leading zeros
            few = menpo84_to_ibug68(points[frame - 1])
            (write_pts if ending == ".pts" else write_ljson)(path, few)
    said = predictions.read_prediction(tmp_path, "001", clip.frames, 84)
    assert said.problems == ()
    np.testing.assert_allclose(said.points, menpo84_to_ibug68(clip.projected), atol=1e-3)
    np.testing.assert_allclose(said.space, menpo84_to_ibug68(clip.model), atol=1e-3)
    nothing = predictions.read_prediction(tmp_path, "002", (1, 2), 84)
    assert nothing.points.shape == (2, 84, 2)
    assert np.isnan(nothing.points).all()


def test_predictions_of_two_sorts_are_not_used(tmp_path):
    (tmp_path / "001").mkdir()
    for frame, count in ((1, 68), (2, 84), (3, 5)):
        write_ljson(tmp_path / "001" / f"{frame:06d}.ljson", np.ones((count, 2)))
    said = predictions.read_prediction(tmp_path, "001", (1, 2, 3), 84)
    assert np.isnan(said.points).all()
    assert any("[68, 84] points" in problem for problem in said.problems)
    assert any("must hold 68 or 84 points" in problem for problem in said.problems)


def test_folders_without_predictions_get_a_sentence(tmp_path):
    with pytest.raises(P2FError, match="no folder of predictions"):
        predictions.check_predictions(tmp_path / "none")
    with pytest.raises(P2FError, match="holds no predictions"):
        predictions.check_predictions(tmp_path)


# --- whole sources ------------------------------------------------------------------------------


@pytest.fixture
def sees_all(monkeypatch, scene, network):
    """`run_source` without files of weights, and with the scene's detector."""
    monkeypatch.setattr(clip_evaluation, "load_network", lambda folder, variant: network)
    monkeypatch.setattr(clip_evaluation, "DlibDetector", lambda: scene.detector)
    clip_evaluation._load.cache_clear()
    yield
    clip_evaluation._load.cache_clear()


def test_a_source_is_gone_through_clip_by_clip(root, sees_all):
    runs, notes = run_source(PARAMETERS, {THIS_RUN: "build"}, root=root.parent, progress=False)
    assert [run.name for run in runs] == ["001", "002"]
    assert [ORACLE in run.methods for run in runs] == [True, False]
    assert notes == []
    few = PARAMETERS | {"n_clips": 1, "n_frames": 2}
    runs, _ = run_source(few, {THIS_RUN: "build"}, root=root.parent, progress=False)
    assert [run.frames for run in runs] == [(1, 2)]


def test_a_broken_clip_is_named_and_the_others_go_on(root, sees_all, tmp_path):
    shutil.copytree(root, tmp_path / "clips")
    (tmp_path / "clips/300VW/001/images/000003.png").write_bytes(b"no picture")
    runs, (note,) = run_source(PARAMETERS, {THIS_RUN: "build"}, root=tmp_path, progress=False)
    assert [run.name for run in runs] == ["002"]
    assert note.startswith("Clip 001 was left out: ")
    assert "000003.png" in note
    (tmp_path / "clips/300VW/002/images/000002.png").unlink()
    with pytest.raises(P2FError, match=r"No clip of .* can be evaluated"):
        run_source(PARAMETERS, {THIS_RUN: "build"}, root=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"source": "300vw"}, "Unknown evaluate.source '300vw'; known are synthetic, menpo3d"),
        ({"root": None, "source": "menpo3d"}, "no folder data/menpo3d .*final_published.*research"),
        ({"root": None, "source": "menpo-static"}, "no folder data/menpo_static .*300-W"),
        ({"predictions": {"this run": "x"}}, "can't be called 'this run'"),
        ({"predictions": {"theirs": "nowhere"}}, "no folder of predictions .*nowhere"),
        ({"workers": 0}, "evaluate.workers is a number from 1 on, got 0"),
        ({"n_clips": 0}, "evaluate.n_clips is a number from 1 on, or null"),
        ({"limit": 0.08, "step": 0.03}, "whole number of steps"),
    ],
)
def test_what_cannot_be_evaluated_gets_a_sentence(root, sees_all, changed, sentence):
    with pytest.raises(P2FError, match=sentence):
        run_source(PARAMETERS | changed, {THIS_RUN: "build"}, root=root.parent, progress=False)


def test_places_of_the_sources(root):
    opened = open_source(PARAMETERS, root.parent)
    assert opened.root == root
    assert opened.names() == ["001", "002"]
    assert opened.truth("002") is None
    assert opened.picture("001", 2).shape == (240, 320, 3)
    assert opened.command == "dvc repro evaluate"
    assert ClipSource("menpo3d", root).command == "dvc exp run -S evaluate.source=menpo3d"


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_processes_gives_the_same(workers):
    found = clip_evaluation._in_processes(len, ["aaaa", "bb", "a"], workers, progress=False)
    assert found == [4, 2, 1]


def test_loading_a_network_brings_both_lists_of_vertices(model, monkeypatch, tmp_path):
    """Vertices chosen for the 68 points replace these among the 84."""
    model.save(tmp_path / reconstruction.FACE_MODEL_FILE)
    chosen = {**model.landmarks, "ibug68": np.roll(model.landmarks["ibug68"], 1)}
    loaded = SimpleNamespace(model=SimpleNamespace(landmarks=chosen))
    monkeypatch.setattr(Reconstructor, "from_pretrained", lambda folder, variant: loaded)
    network = clip_evaluation.load_network(tmp_path)
    np.testing.assert_array_equal(network.plain["menpo84"], model.landmarks["menpo84"])
    np.testing.assert_array_equal(menpo84_to_ibug68(network.chosen["menpo84"][:, None])[:, 0],
                                  chosen["ibug68"])  # fmt: skip
    np.testing.assert_array_equal(
        network.chosen["menpo84"][1:32:2], model.landmarks["menpo84"][1:32:2]
    )
