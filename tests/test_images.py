"""Reading pictures that nobody vouches for."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from p2f_lib.errors import P2FError
from p2f_lib.images import check_image, read_image, write_image


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_round_trip(tmp_path, picture, suffix):
    path = tmp_path / f"picture{suffix}"
    write_image(path, picture)
    np.testing.assert_array_equal(read_image(path), picture)


def test_jpeg_and_webp_come_back_close(tmp_path):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.stack([x * 3, y * 4, 255 - x * 2], axis=-1).astype(np.uint8)
    for suffix in (".jpg", ".webp"):
        write_image(tmp_path / f"smooth{suffix}", smooth)
        back = read_image(tmp_path / f"smooth{suffix}").astype(int)
        assert np.abs(back - smooth).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (3, lambda a: np.rot90(a, 2)),
        (6, np.rot90),  # turned clockwise to be shown: stored turned counter-clockwise
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_exif_orientation_is_honoured(tmp_path, picture, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(picture))).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), picture)


def test_broken_exif_does_not_matter(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), picture)


def test_other_pixel_kinds_become_rgb(tmp_path, picture):
    grey = picture[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))

    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.dstack([grey] * 3))

    alpha = np.where(np.arange(32) < 16, 255, 0).astype(np.uint8)
    alpha = np.broadcast_to(alpha[None, :, None], (24, 32, 1))
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "alpha.png")
    back = read_image(tmp_path / "alpha.png")
    np.testing.assert_array_equal(back[:, :16], picture[:, :16])
    assert not back[:, 16:].any()

    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == (24, 32, 3)
    Image.fromarray(grey).convert("1").save(tmp_path / "bit.png")
    assert set(np.unique(read_image(tmp_path / "bit.png"))) == {0, 255}


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.gif"), np.full((8, 8, 3), (255, 0, 0), np.uint8)
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000, 2_000_000_000])
def test_claimed_size_is_refused_before_decoding(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(P2FError, match=r"bomb\.png.* pixels.*shrink") as info:
        read_image(path)
    assert "\n" not in str(info.value)


def test_max_pixels_is_a_parameter(tmp_path, picture):
    write_image(tmp_path / "x.png", picture)
    assert read_image(tmp_path / "x.png", max_pixels=24 * 32).shape == (24, 32, 3)
    with pytest.raises(P2FError, match="32 x 24 pixels, more than the 767 allowed"):
        read_image(tmp_path / "x.png", max_pixels=24 * 32 - 1)


def test_wrong_files_get_a_sentence_with_their_path(tmp_path, picture):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("I am not a picture.\n")
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    write_image(tmp_path / "whole.png", picture)
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    for name, reason in {
        "empty.jpg": "empty",
        "text.jpg": "not a picture",
        "script.eps": "not a picture",
        "cut.png": "damaged or truncated",
        "folder.jpg": "folder",
        "pipe.jpg": "not an ordinary file",
        "missing.jpg": "no file",
        "n" * 300 + ".jpg": "cannot be read",
    }.items():
        with pytest.raises(P2FError, match=reason) as info:
            read_image(tmp_path / name)
        assert name in str(info.value)


def test_no_damage_raises_anything_else(tmp_path, picture):
    rng = np.random.default_rng(1)
    path = tmp_path / "x"
    outcomes = set()
    for suffix in (".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"):
        write_image(tmp_path / f"whole{suffix}", picture)
        whole = np.frombuffer((tmp_path / f"whole{suffix}").read_bytes(), np.uint8)
        for _ in range(40):
            broken = whole[: rng.integers(1, len(whole) + 1)].copy()
            spots = rng.integers(0, len(broken), 6)
            broken[spots] = rng.integers(0, 256, 6)
            path.write_bytes(broken.tobytes())
            try:
                image = read_image(path, max_pixels=10_000)
                assert image.dtype == np.uint8
                assert image.ndim == 3
                outcomes.add("read")
            except P2FError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((5, 6), np.uint8), "grey"),
        (np.zeros((5, 6, 1), np.uint8), "grey"),
        (np.zeros((5, 6, 4), np.uint8), "alpha"),
        (np.zeros((5, 6, 3), np.float32), "float32"),
        (np.zeros((5, 0, 3), np.uint8), "shape"),
        (np.zeros((1, 5, 6, 3), np.uint8), "shape"),
        ("photo.jpg", "read_image"),
        (None, "read_image"),
    ],
)
def test_check_image(image, reason):
    with pytest.raises(P2FError, match=reason):
        check_image(image)


def test_write_image_errors(tmp_path, picture):
    with pytest.raises(P2FError, match="suffix"):
        write_image(tmp_path / "x.mp3", picture)
    with pytest.raises(P2FError, match="Cannot write"):
        write_image(tmp_path / "nowhere" / "x.png", picture)
    with pytest.raises(P2FError, match="float64"):
        write_image(tmp_path / "x.png", picture / 255)
