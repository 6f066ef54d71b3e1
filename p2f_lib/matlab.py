"""Arrays of numbers, and structures of such arrays, out of MATLAB 5 files that nobody vouches for.

Nothing is executed, sizes are checked before memory is taken, and whatever is damaged gets a
sentence; SciPy's reader knows more kinds of variables, but damaged files can crash it. Layout:
MathWorks, "MAT-File Format" (level 5).
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError

# Types of elements, and classes of arrays, that hold numbers.
_STORED = dict(enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4"), start=1))
_STORED |= {9: "f8", 12: "i8", 13: "u8"}
_CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
_DIMENSIONS, _MATRIX, _COMPRESSED = 5, 14, 15  # types
_STRUCTURE, _OPAQUE = 2, 17  # classes
_COMPLEX = 0x0800
_HEADER = 128  # bytes
_HEAD = 512  # bytes that hold a variable's name and what comes before it
_MAPPED = 2**20  # bytes from which a file is mapped into memory rather than read
SPARE = 2**26  # bytes

Value = np.ndarray | dict[str, np.ndarray]


def read_mat(
    path: Path, *names: str, optional: Collection[str] = (), spare: int = SPARE
) -> dict[str, Value]:
    """The named variables of a MATLAB 5 file (of `save` without -v7.3, or SciPy's `savemat`).

    Arrays have their variable's class and keep MATLAB's column order, so that columns are
    contiguous; those of a large uncompressed file stay on disk until they are used. They can't be
    written to. A 1 x 1 structure becomes a dictionary of those of its fields that hold numbers.

    Parameters
    ----------
    names : variables that the file must hold.
    optional : variables that it may hold; absent ones are left out of the result.
    spare : what a compressed variable may unfold to, see `check_size`.

    Raises
    ------
    P2FError : not such a file, truncated or damaged, or a name is missing or of another kind. The
        message is what ends a sentence about the file, without a full stop.
    OSError : the file cannot be opened.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _MAPPED:
            data = memoryview(file.read(size))
        else:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        with np.errstate(all="ignore"):  # a damaged number may not fit its class
            found = _variables(data, {*names, *optional}, spare)
    except P2FError:
        raise
    except (ValueError, OverflowError, MemoryError, struct.error, zlib.error) as error:
        raise P2FError(f"a variable in it is damaged ({error})") from error
    known = {name: value for name, value in found.items() if value is not None}
    wrong = [name for name in names if name not in found]
    if wrong := wrong + [name for name in found if name not in known]:
        raise P2FError(f"it holds no numbers called {', '.join(wrong)}")
    return known


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Variables that must be arrays; errors as of `read_mat`."""
    found = read_mat(path, *names)
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    if wrong := [name for name in names if name not in arrays]:
        raise P2FError(f"its `{'`, `'.join(wrong)}` should hold numbers, not a structure")
    return arrays


def read_structures(path: Path, *names: str) -> dict[str, dict[str, np.ndarray]]:
    """Variables that must be structures; errors as of `read_mat`."""
    found = read_mat(path, *names)
    structures = {name: value for name, value in found.items() if isinstance(value, dict)}
    if wrong := [name for name in names if name not in structures]:
        raise P2FError(f"its `{'`, `'.join(wrong)}` should be a structure")
    return structures


def check_size(size: int, file_size: int, what: str, spare: int = SPARE) -> None:
    """Raise P2FError when a file claims to unfold to more than any honest one does: eight times
    its size and `spare` bytes."""
    if size > 8 * file_size + spare:
        raise P2FError(
            f"{what} would take {size} bytes, more than a file of {file_size} bytes may unfold to"
        )


def _variables(data: memoryview, names: set[str], spare: int) -> dict[str, Value | None]:
    """Those of `names` that are there, None for kinds other than `Value`."""
    order = _byte_order(data[:_HEADER].tobytes())
    found: dict[str, Value | None] = {}
    start = _HEADER
    while start < len(data):
        kind, body, start = _element(data, start, order)
        matrix = body
        if kind == _COMPRESSED:
            kind, size, matrix = _inflated_head(body, order)
        if kind != _MATRIX:
            raise P2FError(f"it holds something of the unknown type {kind}")
        if not matrix:
            continue
        name, flags, shape, place = _heading(matrix, order)
        if name in names:
            if matrix is not body:
                matrix = _inflated(body, size, spare)
            if flags & 0xFF == _STRUCTURE and shape == (1, 1):
                found[name] = _structure(matrix, order, place)
            else:
                found[name] = _array(matrix, order, flags, shape, place)
    return found


def _byte_order(header: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(header[126:])
    version = int.from_bytes(header[124:126], "big" if order == ">" else "little")
    if header.startswith((b"MATLAB 7.3", b"\x89HDF")) or (order and version == 0x0200):
        raise P2FError(
            "it is a MATLAB 7.3 (HDF5) file; load and save it again with `save -v7` in MATLAB"
        )
    if order is None or version != 0x0100:
        raise P2FError("it is not a MATLAB 5 file")
    return order


def _element(data: memoryview, start: int, order: str) -> tuple[int, memoryview, int]:
    """Type, bytes, and place of the next element."""
    kind, size = struct.unpack_from(order + "II", data, start)
    if kind >> 16:  # up to four bytes lie within the tag
        kind, size, begin, end = kind & 0xFFFF, kind >> 16, start + 4, start + 8
    else:
        begin = start + 8
        end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
    body = data[begin : begin + size]
    if len(body) < size or begin + size > end:
        raise P2FError("it ends in the middle of a variable")
    return kind, body, end


def _inflated_head(body: memoryview, order: str) -> tuple[int, int, memoryview]:
    """Type, length in bytes and beginning of what is compressed."""
    head = memoryview(zlib.decompressobj().decompress(body, _HEAD))
    return *struct.unpack_from(order + "II", head), head[8:]


def _inflated(body: memoryview, size: int, spare: int) -> memoryview:
    """A compressed matrix of `size` bytes."""
    check_size(size, len(body), "a compressed variable", spare)
    stream = zlib.decompressobj()
    data = stream.decompress(body, 8 + size + 1)  # one more, to reach the checksum
    if not stream.eof or len(data) != 8 + size:
        raise P2FError("a compressed variable in it has another length than it says")
    return memoryview(data)[8:]


def _heading(matrix: memoryview, order: str) -> tuple[str, int, tuple[int, ...], int]:
    """Name, flags, dimensions, and where the contents start."""
    _, flags, place = _element(matrix, 0, order)
    (flags,) = struct.unpack_from(order + "I", flags)
    if flags & 0xFF == _OPAQUE:  # an object of a class: no dimensions
        return "", flags, (), place
    kind, dimensions, place = _element(matrix, place, order)
    if kind != _DIMENSIONS or len(dimensions) < 8:
        raise P2FError("a variable in it has no dimensions")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    _, name, place = _element(matrix, place, order)
    return bytes(name).decode("latin-1"), flags, shape, place


def _array(
    matrix: memoryview, order: str, flags: int, shape: tuple[int, ...], place: int
) -> np.ndarray | None:
    """The numbers behind a matrix's heading; None for kinds that aren't read, such as text."""
    kind = flags & 0xFF
    if kind not in _CLASSES or flags & _COMPLEX:
        return None
    stored, values, _ = _element(matrix, place, order)
    if stored not in _STORED:
        raise P2FError(f"a variable in it holds numbers of the unknown type {stored}")
    dtype = np.dtype(order + _STORED[stored])
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise P2FError(f"a variable in it does not hold what its shape {shape} says")
    # MATLAB stores doubles that happen to be small whole numbers as bytes.
    array = np.frombuffer(values, dtype).astype(_CLASSES[kind], copy=False)
    return array.reshape(shape, order="F")


def _structure(matrix: memoryview, order: str, place: int) -> dict[str, np.ndarray]:
    _, length, place = _element(matrix, place, order)
    (length,) = struct.unpack(order + "i", length)
    _, names, place = _element(matrix, place, order)
    if length < 1:
        raise P2FError("a structure in it has field names without length")
    fields = {}
    for start in range(0, len(names), length):
        _, body, place = _element(matrix, place, order)
        if body:  # else an empty field
            _, flags, shape, begin = _heading(body, order)
            value = _array(body, order, flags, shape, begin)  # None for one within it
            if value is not None:
                key = bytes(names[start : start + length]).split(b"\0")[0].decode("latin-1")
                fields[key] = value
    return fields
