"""The challenge's layout, written and read back, and what is said when a part is missing."""

import hashlib
import shutil

import numpy as np
import pytest

from p2f_lib.datasets import menpo3d
from p2f_lib.datasets.landmark_files import read_ljson, write_ljson
from p2f_lib.errors import P2FError
from p2f_lib.images import write_image
from p2f_lib.video import Video, write_video


def smooth_frames(n_frames: int = 5) -> list[np.ndarray]:
    y, x = np.mgrid[:48, :64]
    return [
        np.stack([3 * x, 4 * y, np.full_like(x, 20 * k)], axis=-1).astype(np.uint8)
        for k in range(n_frames)
    ]


def truth(n_frames: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    projected = rng.uniform(0, 60, size=(n_frames, 84, 2)).round(3)
    model = rng.normal(scale=20, size=(n_frames, 84, 3)).round(3)
    model[:, 52], model[:, 61] = (-45, 30, 50), (45, 31, 50)
    return projected, model


@pytest.fixture
def root(tmp_path):
    menpo3d.write_clip(tmp_path, "001", smooth_frames(), *truth())
    return tmp_path


def test_round_trip(root):
    (clip,) = menpo3d.read_clips(root)
    projected, model = truth()
    assert (clip.name, clip.frames, len(clip)) == ("001", (1, 2, 3, 4, 5), 5)
    np.testing.assert_array_equal(clip.projected, projected)
    np.testing.assert_array_equal(clip.model, model)
    for _ in range(2):  # a clip can be read again
        frames = list(clip)
        assert len(frames) == 5
        for frame, expected in zip(frames, smooth_frames(), strict=True):
            assert frame.dtype == np.uint8
            assert np.abs(frame.astype(int) - expected).mean() < 3  # RGB, not BGR; JPEG loses a bit


def test_layout_on_disk(root):
    path = root / "final_published/projected_image_space/001/000003.ljson"
    np.testing.assert_array_equal(read_ljson(path), truth()[0][2])
    assert (root / "final_published/model_space/001/000005.ljson").is_file()
    assert (root / "300VW/001/vid.avi").is_file()
    labels = np.concatenate([list(indices) for indices in menpo3d.LABELS.values()])
    assert labels.tolist() == list(range(84))


def test_same_input_same_bytes(root, tmp_path_factory):
    def digest(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    other = tmp_path_factory.mktemp("again")
    menpo3d.write_clip(other, "001", smooth_frames(), *truth())
    assert digest(root) == digest(other)
    assert len(digest(root)) == 11


def test_only_annotated_frames_are_yielded(root):
    for number in (1, 3, 4):
        (root / menpo3d.PROJECTED / "001" / f"{number:06d}.ljson").unlink()
    clip = menpo3d.read_clip(root, "001")
    assert clip.frames == (2, 5)
    np.testing.assert_array_equal(clip.model, truth()[1][[1, 4]])
    blues = [frame[..., 2].mean() for frame in clip]
    assert blues == pytest.approx([20, 80], abs=3)


def test_model_space_is_optional_and_may_have_x_first(root):
    folder = root / menpo3d.MODEL / "001"
    for path in folder.iterdir():
        write_ljson(path, read_ljson(path)[:, [1, 0, 2]])
    np.testing.assert_array_equal(menpo3d.read_clip(root, "001").model, truth()[1])
    shutil.rmtree(folder)
    assert menpo3d.read_clip(root, "001").model is None


def test_the_archive_may_lie_there_as_it_was_unpacked(root):
    (root / "final_published").rename(root / "moved")
    (root / menpo3d.UNPACKED).mkdir()
    (root / "moved").rename(root / menpo3d.UNPACKED / "final_published")
    (clip,) = menpo3d.read_clips(root)
    np.testing.assert_array_equal(clip.projected, truth()[0])


def test_frames_may_be_pictures(root):
    (root / "300VW/001/vid.avi").unlink()
    folder = root / "300VW/001/images"
    folder.mkdir()
    for number, frame in enumerate(smooth_frames(), start=1):
        write_image(folder / f"{number:06d}.png", frame)
    (folder / "notes.txt").write_text("not a frame")
    clip = menpo3d.read_clip(root, "001")
    for frame, expected in zip(clip, smooth_frames(), strict=True):
        np.testing.assert_array_equal(frame, expected)
    (folder / "000002.png").unlink()
    with pytest.raises(P2FError, match="no picture of 1 annotated frames, the first of them 2"):
        menpo3d.read_clip(root, "001")


def test_a_part_of_a_clip(root):
    clip = menpo3d.read_clip(root, "001").take([1, 4])
    assert clip.frames == (2, 5)
    np.testing.assert_array_equal(clip.projected, truth()[0][[1, 4]])
    np.testing.assert_array_equal(clip.model, truth()[1][[1, 4]])
    blues = [frame[..., 2].mean() for frame in clip]
    assert blues == pytest.approx([20, 80], abs=3)


def test_missing_parts_get_a_sentence(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(P2FError, match="put the challenge's folder final_published there"):
        menpo3d.read_clips(empty)
    (empty / menpo3d.PROJECTED).mkdir(parents=True)
    with pytest.raises(P2FError, match="holds no clip"):
        menpo3d.read_clips(empty)
    (empty / menpo3d.PROJECTED / "002").mkdir()
    with pytest.raises(P2FError, match="Clip 002 has no video"):
        menpo3d.read_clips(empty)
    (empty / "300VW/002").mkdir(parents=True)
    (empty / "300VW/002/vid.avi").write_bytes(b"no video")
    with pytest.raises(P2FError, match=r"Clip 002 has no \.ljson"):
        menpo3d.read_clips(empty)


def test_broken_parts_get_a_sentence(root):
    folder = root / menpo3d.PROJECTED / "001"
    write_ljson(folder / "000099.ljson", np.zeros((84, 2)))
    with pytest.raises(P2FError, match=r"Cannot read .*model_space"):
        menpo3d.read_clip(root, "001")
    shutil.rmtree(root / menpo3d.MODEL)
    with pytest.raises(P2FError, match="ends before its annotated frame 99"):
        list(menpo3d.read_clip(root, "001"))
    write_ljson(folder / "000099.ljson", np.zeros((68, 2)))
    with pytest.raises(P2FError, match="must hold 84 points"):
        menpo3d.read_clip(root, "001")
    (folder / "000099.ljson").rename(folder / "last.ljson")
    with pytest.raises(P2FError, match="named by its frame number"):
        menpo3d.read_clip(root, "001")


def test_write_clip_refuses_what_does_not_fit(tmp_path):
    projected, model = truth()
    with pytest.raises(P2FError, match="A clip needs points"):
        menpo3d.write_clip(tmp_path, "a", smooth_frames(), projected[:, :68], model)
    with pytest.raises(P2FError, match="4 frames but 5 rows"):
        menpo3d.write_clip(tmp_path, "a", smooth_frames(4), projected, model)
    with pytest.raises(P2FError, match="frames 1 to 4, but not all of"):
        menpo3d.write_clip(
            tmp_path, "a", smooth_frames(4), projected, model, numbers=[1, 2, 3, 4, 6]
        )


def test_some_frames_may_be_left_unannotated(root):
    projected, model = truth(2)
    menpo3d.write_clip(root, "001", smooth_frames(), projected, model, numbers=[2, 5])
    (clip,) = menpo3d.read_clips(root)  # those of the earlier clip are gone
    assert clip.frames == (2, 5)
    np.testing.assert_array_equal(clip.projected, projected)
    np.testing.assert_array_equal(clip.model, model)
    blue = [frame[..., 2].mean() for frame in clip]
    assert blue == pytest.approx([20, 80], abs=4)


# --- video ---


def test_video_errors(tmp_path):
    with pytest.raises(P2FError, match="There is no video"):
        next(iter(Video(tmp_path / "none.avi")))
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(P2FError, match="no video that OpenCV can read"):
        len(Video(tmp_path / "text.avi"))
    with pytest.raises(P2FError, match="at least one frame"):
        write_video(tmp_path / "a.avi", [])
    with pytest.raises(P2FError, match="one size"):
        write_video(
            tmp_path / "a.avi", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)]
        )


def test_video_length(root):
    assert len(Video(root / "300VW/001/vid.avi")) == 5
