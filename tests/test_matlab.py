"""MATLAB 5 files: against SciPy's reader, by hand, and damaged at every place."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from p2f_lib.errors import P2FError
from p2f_lib.matlab import check_size, read_arrays, read_mat, read_structures

KINDS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def element(order: str, kind: int, body: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(body)) + body.ljust(-(-len(body) // 8) * 8, b"\0")


def small(order: str, kind: int, body: bytes) -> bytes:
    """Up to four bytes, which lie within the tag."""
    return struct.pack(order + "I", len(body) << 16 | kind) + body.ljust(4, b"\0")


def variable(order: str, name: bytes, shape: tuple[int, ...], *contents: bytes, flags=6) -> bytes:
    head = element(order, 6, struct.pack(order + "II", flags, 0))
    head += element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape))
    head += small(order, 1, name) if 0 < len(name) <= 4 else element(order, 1, name)
    return element(order, 14, head + b"".join(contents))


def sound(name: str, n: int = 5) -> bytes:
    return variable("<", name.encode(), (n, 1), element("<", 9, bytes(8 * n)))


def header(order: str, version: int = 0x0100) -> bytes:
    mark = {"<": b"IM", ">": b"MI"}[order]
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", version) + mark


def compressed(order: str, data: bytes) -> bytes:
    body = zlib.compress(data)
    return struct.pack(order + "II", 15, len(body)) + body


def handmade(order: str, deflate: bool) -> bytes:
    """A file with `a` (3, 2), doubles stored as bytes; a structure `s` of `x` (1, 3), `yy` a text
    and `z` nothing; and `longer` (2, 2)."""
    wrap = compressed if deflate else lambda _, data: data
    f4 = struct.pack(order + "3f", 1.5, -2, 3e9)
    text = variable(order, b"", (1, 2), element(order, 4, b"o\0k\0"), flags=4)
    fields = (variable(order, b"", (1, 3), element(order, 7, f4), flags=7), text)
    names = small(order, 5, struct.pack(order + "i", 3)) + element(order, 1, b"x\0\0yy\0z\0\0")
    variables = (
        variable(order, b"a", (3, 2), element(order, 2, bytes([1, 2, 3, 255, 5, 6]))),
        variable(order, b"s", (1, 1), names, *fields, element(order, 14, b""), flags=2),
        variable(order, b"longer", (2, 2), element(order, 9, struct.pack(order + "4d", *range(4)))),
    )
    return header(order) + b"".join(wrap(order, each) for each in variables)


def check(found: dict) -> None:
    """That it is what `handmade` wrote."""
    assert found["a"].tolist() == [[1, 255], [2, 5], [3, 6]]
    assert found["s"].keys() == {"x"}
    assert found["s"]["x"].tolist() == [[1.5, -2, 3e9]]
    assert found["longer"].tolist() == [[0, 2], [1, 3]]


# --- whole files ---


@pytest.mark.parametrize("deflate", [False, True])
def test_arrays_are_read_as_scipy_wrote_them(tmp_path, deflate):
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 2), (3, 5), (7, 1), (2, 3, 4), (0, 3)]
    content = {
        f"{kind}_{i}": rng.integers(0, 100, shape).astype(kind)
        for kind in KINDS
        for i, shape in enumerate(shapes)
    }
    content |= {"d": rng.normal(size=(30, 40)), "yes": np.array([True])}
    other = {"text": "not numbers", "cells": np.array([1, "a"], object), "complex": np.array([1j])}
    structure = {"a": content["f8_2"], "t": "x", "b": {"c": 1}}
    path = tmp_path / "a.mat"
    savemat(path, {"n" * 63: 1.0} | other | content | {"s": structure}, do_compression=deflate)
    expected = loadmat(path)
    found = read_mat(path, *content, "s", optional=["absent"])
    assert found.keys() == {*content, "s"}
    for name in content:
        assert found[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(found[name], expected[name])
    assert list(found["s"]) == ["a"]
    np.testing.assert_array_equal(found["s"]["a"], content["f8_2"])
    for name in (*other, "absent"):
        with pytest.raises(P2FError, match=f"^it holds no numbers called {name}$"):
            read_mat(path, "d", name)
    for name in other:  # there, but of another kind
        with pytest.raises(P2FError, match=f"^it holds no numbers called {name}$"):
            read_mat(path, "d", optional=[name])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_files_made_by_hand(tmp_path, order, deflate):
    """Doubles are stored as bytes where they are whole and small, as MATLAB does."""
    path = tmp_path / "a.mat"
    path.write_bytes(handmade(order, deflate))
    found = read_mat(path, "a", "s", "longer")
    check(found)
    assert (found["a"].dtype, found["s"]["x"].dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(found["a"], loadmat(path)["a"])


def test_a_large_file_stays_on_disk(tmp_path):
    path = tmp_path / "a.mat"
    array = np.random.default_rng(0).normal(size=(1000, 1000))
    savemat(path, {"a": array, "b": array[:2]})
    tracemalloc.start()
    found = read_mat(path, "a", "b")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e5
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"], array[:2])
    assert found["a"][:, 3].flags.c_contiguous


def test_objects_without_dimensions_are_passed_over(tmp_path):
    """A table or a string of MATLAB's, of class 17: flags, then three names and its content."""
    names = b"".join(element("<", 1, each) for each in (b"t", b"MCOS", b"string"))
    flags = element("<", 6, struct.pack("<II", 17, 0))
    opaque = element("<", 14, flags + names + variable("<", b"", (1, 1), element("<", 2, b"\1")))
    for data in (opaque, compressed("<", opaque)):
        (tmp_path / "a.mat").write_bytes(header("<") + data + handmade("<", False)[128:])
        check(read_mat(tmp_path / "a.mat", "a", "s", "longer", optional=["t"]))


# --- other files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB 5 file"),
        (bytes(500), "not a MATLAB 5 file"),
        (b"words\n" * 100, "not a MATLAB 5 file"),
        (header("<")[:127], "not a MATLAB 5 file"),
        (header("<", 0x0300), "not a MATLAB 5 file"),
        (header(">")[:126] + b"IM", "not a MATLAB 5 file"),
        (header("<", 0x0200) + b"\x89HDF\r\n\x1a\n", "save -v7"),
        (b"MATLAB 7.3 MAT-file".ljust(126) + b"IM" + bytes(500), "save -v7"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "save -v7"),
        (header("<"), "no numbers called a, b"),
        (header("<") + bytes(64), "unknown type 0"),
        (header("<") + compressed("<", element("<", 9, bytes(80))), "unknown type 9"),
        (header("<") + b"\xff" * 64, "ends in the middle|unknown type"),
    ],
)
def test_alien_files(tmp_path, content, message):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(P2FError, match=message) as error:
        read_mat(tmp_path / "a.mat", "a", "b")
    assert not str(error.value).endswith(".")  # callers end the sentence


@pytest.mark.parametrize(
    "wrong",
    [
        variable("<", b"a", (2, 3), element("<", 9, bytes(40))),  # too few
        variable("<", b"a", (2, 3), element("<", 9, bytes(56))),  # too many
        variable("<", b"a", (2, 3), element("<", 9, bytes(47))),  # not whole
        variable("<", b"a", (-2, -3), element("<", 9, bytes(48))),
        variable("<", b"a", (2**31 - 1,) * 40, element("<", 9, bytes(48))),
        variable("<", b"a", (1,) * 100, element("<", 9, bytes(8))),  # more than NumPy's dimensions
        variable("<", b"a", (6,), element("<", 9, bytes(48))),  # one dimension
        variable("<", b"a", (2, 3), element("<", 8, bytes(48))),  # unknown type
        variable("<", b"a", (2, 3)),  # no content
        variable("<", b"a", (2, 3), struct.pack("<HH", 2, 6) + bytes(12)),  # no room in the tag
        sound("a").replace(struct.pack("<II", 5, 8), struct.pack("<II", 9, 8)),  # dimensions
        variable("<", b"a", (1, 1), flags=2),
        variable("<", b"a", (1, 1), small("<", 5, bytes(4)), element("<", 1, b"x" * 9), flags=2),
        variable("<", b"a", (1, 1), small("<", 5, bytes(2)), flags=2),
        element("<", 14, element("<", 6, b"\6\0")),
    ],
)
def test_variables_that_contradict_themselves(tmp_path, wrong):
    for data in (wrong, compressed("<", wrong)):
        (tmp_path / "a.mat").write_bytes(header("<") + data)
        with pytest.raises(P2FError):
            read_mat(tmp_path / "a.mat", "a")


# --- damaged bytes ---


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_truncation_at_every_place(tmp_path, order, deflate):
    path, whole = tmp_path / "a.mat", handmade(order, deflate)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(P2FError):
            read_mat(path, "a", "s", "longer")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_a_flipped_byte_at_every_place(tmp_path, order, deflate):
    """Some numbers or a sentence; the checksum of a compressed variable lets nothing through."""
    path, whole = tmp_path / "a.mat", handmade(order, deflate)
    rng = np.random.default_rng(0)
    sentences = 0
    for place in range(len(whole)):
        for value in {0, 255, whole[place] ^ 1, whole[place] ^ 128, *rng.integers(0, 256, 3)}:
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                found = read_mat(path, "a", "s", "longer")
            except P2FError:
                sentences += 1
                continue
            assert found.keys() == {"a", "s", "longer"}
            if deflate:
                check(found)
    assert sentences > len(whole)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("deflate", [False, True])
def test_many_flipped_bytes_take_little_memory(tmp_path, deflate):
    path, rng = tmp_path / "a.mat", np.random.default_rng(1)
    savemat(path, {"a": np.arange(200.0), "s": {"x": np.ones(9)}}, do_compression=deflate)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    outcomes = []
    tracemalloc.start()
    for _ in range(1000):
        bad = whole.copy()
        places = rng.integers(128, rng.choice((200, len(bad))), rng.integers(1, 5))
        bad[places] = rng.integers(0, 256, len(places))
        path.write_bytes(bad.tobytes())
        try:
            outcomes.append(read_mat(path, "a", optional=["s"]).keys() == {"a", "s"})
        except P2FError:
            outcomes.append(None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcomes.count(None) > 200
    assert deflate or outcomes.count(True) > 50
    assert peak < 5e6


# --- sizes ---


def test_what_unfolds_to_much_is_refused_before_it_does(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"a": np.zeros(2**20)}, do_compression=True)
    assert read_mat(path, "a")["a"].size == 2**20
    tracemalloc.start()
    with pytest.raises(P2FError, match=r"more than a file of \d+ bytes may unfold to"):
        read_mat(path, "a", spare=2**20)
    assert read_mat(path, optional=["b"], spare=2**20) == {}  # nobody asked for it
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e5


def test_a_compressed_variable_of_another_length_than_it_says(tmp_path):
    path, whole = tmp_path / "a.mat", sound("a", 2000)
    bodies = [zlib.compress(data) for data in (whole + bytes(8), whole[:-8], whole + bytes(10**7))]
    for body in (*bodies, zlib.compress(whole)[:-1]):  # the last lacks a part of its checksum
        path.write_bytes(header("<") + struct.pack("<II", 15, len(body)) + body)
        with pytest.raises(P2FError, match="another length"):
            read_mat(path, "a")


def test_sizes():
    check_size(8 * 100 + 2**26, 100, "x")
    check_size(8 * 100 + 5, 100, "x", spare=5)
    for size, spare in ((8 * 100 + 2**26 + 1, {}), (8 * 100 + 6, {"spare": 5})):
        with pytest.raises(P2FError, match=f"x would take {size} bytes"):
            check_size(size, 100, "x", **spare)


def test_arrays_and_structures_are_told_apart(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"a": np.eye(2), "s": {"x": np.eye(3)}})
    assert read_arrays(path, "a")["a"].tolist() == [[1, 0], [0, 1]]
    assert read_structures(path, "s")["s"]["x"].shape == (3, 3)
    with pytest.raises(P2FError, match=r"^its `s` should hold numbers, not a structure$"):
        read_arrays(path, "a", "s")
    with pytest.raises(P2FError, match=r"^its `a` should be a structure$"):
        read_structures(path, "a", "s")
