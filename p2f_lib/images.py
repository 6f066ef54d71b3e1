"""Pictures in and out: uint8 RGB arrays, read from files that nobody vouches for."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from p2f_lib.errors import P2FError

MAX_PIXELS = 50_000_000
# Only plain raster formats: others (EPS, for one) start foreign programs when they are decoded.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHER_SUFFIXES = (
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pnm",
    ".avif",
)
SUFFIXES = frozenset((*_JPEG_SUFFIXES, *_OTHER_SUFFIXES))


def check_image(image: np.ndarray) -> np.ndarray:
    """Return `image` if it is a picture in the sense of this package.

    Raises
    ------
    P2FError
        `image` is no (H, W, 3) uint8 array; the message says how to make it one.
    """
    wanted = "expected a uint8 RGB array (H, W, 3)"
    if not isinstance(image, np.ndarray):
        raise P2FError(
            f"Got {type(image).__name__} for a picture, {wanted}; "
            "read files with p2f_lib.images.read_image."
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise P2FError(
            f"Got a grey picture {image.shape}, {wanted}; repeat its channel three times."
        )
    if image.ndim == 3 and image.shape[2] == 4:
        raise P2FError(f"Got a picture with alpha {image.shape}, {wanted}; pass image[..., :3].")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise P2FError(f"Got an array of shape {image.shape} for a picture, {wanted}.")
    if image.dtype != np.uint8:
        raise P2FError(f"Got a picture of {image.dtype}, {wanted}; scale it to 0..255 and convert.")
    return image


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture file upright (EXIF orientation applied), first frame only.

    The size in the header is checked before anything is decoded, so a small file can't claim
    boundless memory.

    Parameters
    ----------
    path : str or Path
        JPEG, PNG, WebP, BMP, TIFF, GIF, PNM or AVIF.
    max_pixels : int
        Largest width times height that is decoded.

    Returns
    -------
    (H, W, 3) uint8, RGB.

    Raises
    ------
    P2FError
        The file is missing, empty, damaged, too large, or not a picture.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise P2FError(f"{path} is a folder, expected a picture file.")
        if not path.exists():
            raise P2FError(f"There is no file {path}.")
        if not path.is_file():
            raise P2FError(f"{path} is not an ordinary file, expected a picture.")
        if path.stat().st_size == 0:
            raise P2FError(f"{path} is empty, expected a picture.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is checked here
            return _decode(path, str(path), max_pixels)
    except P2FError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte in it
        raise P2FError(f"{path} cannot be read: {error}.") from error


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture file's bytes, an upload's for instance, to a picture; as `read_image`.

    Parameters
    ----------
    data : what the file holds.
    name : how errors call it.
    max_pixels : as of `read_image`.
    """
    if not data:
        raise P2FError(f"{name} is empty, expected a picture.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(BytesIO(data), name, max_pixels)


def _decode(file: Path | BytesIO, name: str, max_pixels: int) -> np.ndarray:
    try:
        picture = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise P2FError(f"{name} has more than {max_pixels:,} pixels; shrink it first.") from error
    except PermissionError:
        raise
    except Exception as error:
        raise P2FError(
            f"{name} is not a picture that can be read (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM, "
            "AVIF)."
        ) from error
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise P2FError(
                f"{name} has {width} x {height} pixels, more than the {max_pixels:,} allowed; "
                "shrink it first."
            )
        try:
            picture.load()
        except Exception as error:  # decoders raise almost anything on damaged files
            raise P2FError(f"{name} is a damaged or truncated picture: {error}.") from error
        return np.ascontiguousarray(_to_rgb(_upright(picture)))


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken metadata in a picture that decoded well: take it as it lies
        return picture


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith(("I", "F")):  # deeper than 8 bits; Pillow would clip, not scale
        values = np.asarray(picture, np.float64)
        top = 65535.0 if picture.mode.startswith("I") else max(float(np.nanmax(values)), 1e-12)
        grey = np.nan_to_num(np.clip(values / top, 0, 1) * 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if (
        picture.mode == "RGBA"
    ):  # what lies under full transparency is anybody's guess: make it black
        rgba = np.asarray(picture)
        return (rgba[..., :3] * (rgba[..., 3:] / 255.0)).round().astype(np.uint8)
    return np.asarray(picture.convert("RGB"))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 RGB picture in the format that the suffix names.

    Raises
    ------
    P2FError
        `image` is no such array, the suffix is unknown, or the file can't be written.
    """
    path = Path(path)
    check_image(image)
    if path.suffix.lower() not in SUFFIXES:
        raise P2FError(f"Cannot write {path}: no picture format has the suffix {path.suffix!r}.")
    try:
        quality: dict[str, Any] = {"quality": 95} if path.suffix.lower() in _JPEG_SUFFIXES else {}
        Image.fromarray(image).save(path, **quality)
    except (OSError, ValueError) as error:
        raise P2FError(f"Cannot write {path}: {error}.") from error
