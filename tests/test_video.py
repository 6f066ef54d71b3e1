"""Video files, folders and their faults: frames, numbers, times, orientation."""

import struct
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from p2f_lib import video
from p2f_lib.errors import P2FError
from p2f_lib.images import write_image
from p2f_lib.video import Camera, Limited, Pictures, Video, VideoWriter, open_source, write_video


def grey(k: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 20 * k, np.uint8)


@pytest.fixture
def avi(tmp_path):
    path = tmp_path / "ten.avi"
    write_video(path, (grey(k) for k in range(10)), fps=20)
    return path


def summary(frames):
    """Number, time in ms and level of every frame; None where it can't be read."""
    return [
        (f.index, round(1000 * f.time), None if f.image is None else round(f.image.mean() / 20))
        for f in frames
    ]


def pictures_of(data: bytes) -> list[tuple[int, int]]:
    """Where the JPEG pictures of an .avi begin, and their lengths."""
    place, found = data.index(b"movi") + 4, []
    while data[place : place + 4] == b"00dc":
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append((place + 8, length))
        place += 8 + length + length % 2
    return found


def spoil(path, *numbers):
    data = bytearray(path.read_bytes())
    places = pictures_of(bytes(data))
    for number in numbers:
        start, length = places[number]
        data[start : start + length] = bytes(length)
    path.write_bytes(data)


def test_frames_have_numbers_times_and_pictures(avi):
    assert summary(Video(avi).frames()) == [(k, 50 * k, k) for k in range(10)]
    assert summary(Video(avi).frames(7)) == [(k, 50 * k, k) for k in (7, 8, 9)]
    assert summary(Video(avi).frames(10)) == []
    assert (len(Video(avi)), Video(avi).fps) == (10, 20)
    assert next(iter(Video(avi))).shape == (48, 64, 3)


def test_spoilt_frames_are_marked_and_the_rest_survives(avi):
    spoil(avi, 0, 4, 5)
    expected = [(k, 50 * k, None if k in (4, 5) else k) for k in range(1, 10)]
    got = summary(Video(avi).frames())
    assert got[1:] == expected
    assert (got[0][0], got[0][2]) == (0, None)
    assert got[0][1] <= 0 or got[0][1] < 50
    assert summary(Video(avi).frames(5)) == expected[4:]


def test_plain_frames_keep_their_numbers_by_repeating(avi):
    spoil(avi, 0, 4, 5)
    assert [round(f.mean() / 20) for f in Video(avi)] == [1, 1, 2, 3, 3, 3, 6, 7, 8, 9]


def test_a_file_that_was_cut_off_is_shorter(avi):
    avi.write_bytes(avi.read_bytes()[: pictures_of(avi.read_bytes())[6][0] - 8])
    assert [k for k, _, level in summary(Video(avi).frames()) if level is not None] == list(
        range(6)
    )


def test_a_file_without_any_readable_frame_gets_a_sentence(avi, tmp_path):
    spoil(avi, *range(10))
    with pytest.raises(P2FError, match="no frame of it can be read"):
        list(Video(avi).frames())
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(P2FError, match=r"empty.mp4 is empty, expected a video"):
        open_source(str(tmp_path / "empty.mp4"))


# --- files that OpenCV doesn't write itself: other times, turned cameras ---


def boxes_of(data: bytes):
    place = 0
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        yield kind, data[place + 8 : place + size]
        place += size


def rebuilt(data: bytes, changes) -> bytes:
    """An MP4 file with the contents of some of its boxes changed, by kind."""
    parts = []
    for kind, content in boxes_of(data):
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = rebuilt(content, changes)
        content = changes.get(kind, lambda same: same)(content)
        parts.append(struct.pack(">I4s", len(content) + 8, kind) + content)
    return b"".join(parts)


@pytest.fixture
def mp4(tmp_path):
    path = tmp_path / "six.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for k in range(6):
        image = grey(k + 1)
        image[:10, :10] = 255  # the upper left corner
        writer.write(image)
    writer.release()
    if not path.exists():
        pytest.skip("this OpenCV writes no MP4")
    return path


def test_times_are_those_of_the_file_at_a_variable_frame_rate(mp4):
    def uneven(stts):
        count, _, tick = struct.unpack(">3I", stts[4:16])
        assert count == 1
        return stts[:4] + struct.pack(">7I", 3, 2, tick // 2, 1, 2 * tick, 3, tick)

    kinds = [kind for kind, _ in boxes_of(mp4.read_bytes())]
    assert kinds.index(b"mdat") < kinds.index(b"moov")  # so that the pictures stay where they are
    mp4.write_bytes(rebuilt(mp4.read_bytes(), {b"stts": uneven}))
    times = [round(1000 * frame.time) for frame in Video(mp4).frames()]
    assert times == [0, 20, 40, 120, 160, 200]


@pytest.mark.parametrize(("turn", "corner"), [(0, "tl"), (90, "tr"), (180, "br"), (270, "bl")])
def test_videos_of_turned_phones_stand_upright(mp4, turn, corner):
    matrices = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (65536 * value for value in matrices[turn])
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)

    def turned(tkhd):
        return tkhd[:40] + matrix + tkhd[76:]

    mp4.write_bytes(rebuilt(mp4.read_bytes(), {b"tkhd": turned}))
    image = next(Video(mp4).frames()).image
    assert image.shape == ((64, 48, 3) if turn in (90, 270) else (48, 64, 3))
    corners = {"tl": image[3, 3], "tr": image[3, -4], "bl": image[-4, 3], "br": image[-4, -4]}
    assert max(corners, key=lambda name: corners[name].sum()) == corner


# --- folders ---


def test_a_folder_is_a_video_in_the_order_of_its_numbers(tmp_path):
    for k in (10, 9, 1):
        write_image(tmp_path / f"frame_{k}.png", grey(k))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "frame_9b.png").write_text("no picture either")
    source = open_source(str(tmp_path), fps=10)
    assert summary(source.frames()) == [(0, 0, 1), (1, 100, 9), (2, 200, None), (3, 300, 10)]
    assert summary(source.frames(3)) == [(3, 300, 10)]
    assert len(source) == 4


def test_pictures_of_turned_phones_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(grey(3)).save(tmp_path / "a.jpg", exif=exif)
    assert next(Pictures(tmp_path).frames()).image.shape == (64, 48, 3)


def test_folders_without_pictures_and_rates_get_a_sentence(tmp_path):
    with pytest.raises(P2FError, match="no picture in the folder"):
        open_source(str(tmp_path))
    write_image(tmp_path / "a.png", grey(1))
    with pytest.raises(P2FError, match="above 0, got 0"):
        open_source(str(tmp_path), fps=0)


# --- cameras and limits ---


class FakeCamera:
    """Four pictures, then nothing more."""

    def __init__(self, number):
        self.number, self.left = number, 4

    def isOpened(self):
        return self.number == 0

    def read(self):
        self.left -= 1
        return self.left >= 0, grey(max(self.left, 0))

    def release(self):
        pass


def test_a_camera_is_a_number(monkeypatch):
    monkeypatch.setattr(video.cv2, "VideoCapture", FakeCamera)
    source = open_source("0")
    assert source == Camera(0)
    frames = list(source.frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert all(a.time < b.time for a, b in pairwise(frames))
    with pytest.raises(P2FError, match="no camera 3"):
        next(open_source("3").frames())


def test_limits_end_a_source_without_reading_on(avi):
    assert [f.index for f in Limited(Video(avi), 4).frames()] == [0, 1, 2, 3]
    assert [f.index for f in Limited(Video(avi), 4).frames(2)] == [2, 3]
    assert list(Limited(Video(avi), 4).frames(4)) == []
    assert [f.index for f in Limited(Video(avi), seconds=0.15).frames()] == [0, 1, 2]
    assert (len(Limited(Video(avi), 4)), len(Limited(Video(avi), 40))) == (4, 10)
    assert len(Limited(Video(avi), seconds=0.15)) == 3
    assert len(Limited(Camera(0), 7)) == 7


def test_frames_can_be_written_one_by_one(avi, tmp_path):
    with VideoWriter(tmp_path / "same.avi", fps=20) as writer:
        for k in range(10):
            writer.write(grey(k))
    assert writer.n_frames == 10
    assert (tmp_path / "same.avi").read_bytes() == avi.read_bytes()


def test_frames_of_boundless_size_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.avi", [np.zeros((24, 32, 3), np.uint8)] * 2)
    monkeypatch.setattr(video, "MAX_PIXELS", 24 * 32)
    assert len(list(Video(tmp_path / "clip.avi"))) == 2
    monkeypatch.setattr(video, "MAX_PIXELS", 24 * 32 - 1)
    with pytest.raises(P2FError, match="32 x 24 pixels, more than the 767 allowed"):
        list(Video(tmp_path / "clip.avi"))
