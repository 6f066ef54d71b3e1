"""The interactive page: whole by itself, the same bytes for the same numbers, nobody's HTML."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt

from p2f_lib import clip_summary
from p2f_lib.report import write_report
from tests.test_clip_summary import run_of, shifted


@pytest.fixture
def result():
    evil = "</script><b onclick=x()>"
    runs = [run_of("001", [1, 2, 3]), run_of(evil, [4, np.nan], detected=np.zeros(2, bool))]
    methods = [run.methods | {evil: shifted(1, len(run.frames))} for run in runs]
    runs = [replace(run, methods=m) for run, m in zip(runs, methods, strict=True)]
    return clip_summary.summarise(runs, [f"{evil} is broken"])


def body_of(path):
    """The page without Plotly's own code."""
    return path.read_text().partition("</head>")[2]


def test_the_page_is_whole_and_the_same_each_time(result, tmp_path):
    figure, axis = plt.subplots(figsize=(2, 1))
    plt.close(figure)
    axis.plot([1, 2])
    paths = [tmp_path / "new" / name for name in ("a.html", "b.html")]
    for path in paths:
        write_report(path, result, "make this", {"A picture": figure})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    body = body_of(paths[0])
    for plot in ("ced-2d", "ced-3d", "yaw", "time", "claims-2d"):
        assert f'<div id="{plot}"' in body
    assert "claims-3d_mm" not in body  # nothing is claimed of 3D here
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", body)  # nothing comes from elsewhere
    assert body.count('src="data:image/jpeg;base64,') == 1
    assert paths[0].read_text().count("plotly.js v") == 1


def test_the_page_holds_the_numbers(result, tmp_path):
    write_report(tmp_path / "index.html", result, "make this")
    body = body_of(tmp_path / "index.html")
    assert "5 frames of 2 clips, made by <code>make this</code>" in body
    assert "<td>2D, % of interocular</td><td>this run</td><td>5</td><td>2.50</td>" in body
    assert "<td>perspective instead of affine camera</td>" in body
    assert "box interpolated" in body


def test_names_of_files_are_text_and_nothing_else(result, tmp_path):
    write_report(tmp_path / "index.html", result, "</code><script>x()</script>")
    body = body_of(tmp_path / "index.html")
    assert "<b onclick" not in body
    assert "<script>x()" not in body
    assert "&lt;/script&gt;&lt;b onclick" in body
    # Plotly's own scripts are closed where they end, and nowhere else.
    assert body.count("<script") == body.count("</script>")


def test_without_space_and_claims_the_page_has_less(tmp_path):
    run = run_of("001", [1, 2], truth_space=np.full((2, 84, 3), np.nan), variants={})
    result = clip_summary.summarise([replace(run, variants={"this run": {}})])
    assert result.claims == ()
    write_report(tmp_path / "index.html", result, "make this")
    body = body_of(tmp_path / "index.html")
    assert '<div id="ced-2d"' in body
    assert '<div id="ced-3d"' not in body
    assert '<div id="claims' not in body
