"""Landmark files: round trips, files written out by hand, and files that lie."""

import json

import numpy as np
import pytest

from p2f_lib.datasets import landmark_files as lf
from p2f_lib.errors import P2FError


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: object):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


# --- reading what others wrote: y first on disk ---


def test_ljson_version_1(write):
    groups = [
        {"label": "a", "landmarks": [{"point": [2, 1]}, {"point": [4, 3]}], "connectivity": []},
        {"label": "b", "landmarks": [{"point": [6.5, None]}]},
    ]
    got = lf.read_ljson(write("a.ljson", {"version": 1, "groups": groups}))
    np.testing.assert_array_equal(got, [[1, 2], [3, 4], [np.nan, 6.5]])


def test_ljson_version_2(write):
    content = {"version": 2, "landmarks": {"points": [[2, 1], [None, None]]}, "labels": []}
    np.testing.assert_array_equal(
        lf.read_ljson(write("a.ljson", content)), [[1, 2], [np.nan, np.nan]]
    )


def test_ljson_version_2_in_space(write):
    content = {"version": 2, "landmarks": {"points": [[2, 1, 3], [5, 4, 6]]}, "labels": []}
    np.testing.assert_array_equal(
        lf.read_landmarks(write("a.ljson", content)), [[1, 2, 3], [4, 5, 6]]
    )


def test_ljson_version_3_with_several_groups(write):
    groups = {name: {"landmarks": {"points": [[k, 0]]}} for k, name in enumerate("ab")}
    path = write("a.ljson", {"version": 3, "groups": groups})
    np.testing.assert_array_equal(lf.read_ljson(path, group="b"), [[0, 1]])
    with pytest.raises(P2FError, match=r"groups \['a', 'b'\]; name one"):
        lf.read_ljson(path)


def test_pts(write):
    path = write("a.pts", "version: 1\nn_points:  2\n{\n1.000 3.000\n\n11.5 nan\n}\n")
    np.testing.assert_array_equal(lf.read_landmarks(path), [[0, 2], [10.5, np.nan]])


# --- round trips ---


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("dimension", [2, 3])
def test_ljson_round_trip(tmp_path, version, dimension):
    points = np.random.default_rng(0).normal(scale=200, size=(84, dimension)).round(4)
    points[5] = np.nan
    labels = {"jaw": range(33), "rest": np.arange(33, 84)}
    path = tmp_path / "a.ljson"
    lf.write_ljson(path, points, version=version, labels=labels)
    np.testing.assert_array_equal(lf.read_ljson(path), points)
    assert json.loads(path.read_text())["version"] == version
    first = path.read_bytes()
    lf.write_ljson(path, points, version=version, labels=labels)
    assert path.read_bytes() == first


def test_ljson_labels_are_index_lists(tmp_path):
    lf.write_ljson(tmp_path / "a.ljson", np.zeros((3, 2)), labels={"a": [0], "b": [1, 2]})
    labels = json.loads((tmp_path / "a.ljson").read_text())["labels"]
    assert labels == [{"label": "a", "mask": [0]}, {"label": "b", "mask": [1, 2]}]


def test_pts_round_trip(tmp_path):
    points = np.random.default_rng(1).uniform(-20, 600, size=(68, 2)).round(3)
    lf.write_pts(tmp_path / "a.pts", points)
    np.testing.assert_allclose(lf.read_pts(tmp_path / "a.pts"), points, atol=1e-9)
    assert (tmp_path / "a.pts").read_text().startswith("version: 1\nn_points: 68\n{\n")


# --- files that lie ---

GOOD = {"version": 2, "landmarks": {"points": [[1, 2]]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (f"[{'9' * 5000}]", "not valid JSON"),
        (b"\xff\xfe\x00", "not a text file"),
        ([], "version None"),
        (GOOD | {"version": 4}, "version 4"),
        ({"version": 2}, "structure is another"),
        ({"version": 2, "landmarks": [1]}, "structure is another"),
        ({"version": 1, "groups": [{"landmarks": [[1, 2]]}]}, "structure is another"),
        ({"version": 3, "groups": [1]}, "structure is another"),
        ({"version": 2, "landmarks": {"points": []}}, "list of points"),
        ({"version": 2, "landmarks": {"points": 7}}, "list of points"),
        ({"version": 2, "landmarks": {"points": {"a": 1}}}, "list of points"),
        ({"version": 2, "landmarks": {"points": [[1, 2], [1, 2, 3]]}}, "list of points"),
        ({"version": 2, "landmarks": {"points": [[1, 2, 3, 4]]}}, "list of points"),
        ({"version": 2, "landmarks": {"points": [["1", 2]]}}, "neither a number nor null"),
        ({"version": 2, "landmarks": {"points": [[[1], 2]]}}, "neither a number nor null"),
        ({"version": 2, "landmarks": {"points": [[10**400, 2]]}}, "beyond all pictures"),
    ],
)
def test_broken_ljson_gets_a_sentence(write, content, message):
    with pytest.raises(P2FError, match=message):
        lf.read_ljson(write("a.ljson", content))


def test_infinite_coordinates_are_unknown(write):
    got = lf.read_ljson(write("a.ljson", '{"version":2,"landmarks":{"points":[[Infinity,1]]}}'))
    np.testing.assert_array_equal(got, [[1, np.nan]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2\n3 4\n", "between"),
        ("n_points: 3\n{\n1 2\n}\n", "announces 3 points but holds 1"),
        ("{\n1 2 3\n}\n", "not two numbers"),
        ("{\n1 x\n}\n", "not two numbers"),
    ],
)
def test_broken_pts_gets_a_sentence(write, content, message):
    with pytest.raises(P2FError, match=message):
        lf.read_pts(write("a.pts", content))


def test_long_missing_and_unknown_files(write, tmp_path, monkeypatch):
    with pytest.raises(P2FError, match="Cannot read"):
        lf.read_ljson(tmp_path / "none.ljson")
    with pytest.raises(P2FError, match="no known ending"):
        lf.read_landmarks(tmp_path / "a.txt")
    path = write("a.ljson", GOOD)
    monkeypatch.setattr(lf, "MAX_BYTES", 10)
    with pytest.raises(P2FError, match="longer than"):
        lf.read_ljson(path)


def test_wrong_input_to_writers(tmp_path):
    path = tmp_path / "a.ljson"
    with pytest.raises(P2FError, match="shape"):
        lf.write_ljson(path, np.zeros((3, 4)))
    with pytest.raises(P2FError, match="shape"):
        lf.write_pts(path, np.zeros((3, 3)))
    with pytest.raises(P2FError, match=r"no \.ljson version 5"):
        lf.write_ljson(path, np.zeros((3, 2)), version=5)
    with pytest.raises(P2FError, match="outside"):
        lf.write_ljson(path, np.zeros((3, 2)), labels={"a": [3]})
    with pytest.raises(P2FError, match="in order"):
        lf.write_ljson(path, np.zeros((3, 2)), version=1, labels={"a": [2, 1, 0]})
    assert not path.exists()
