"""Errors of clips by hand: which kinds, who counts, what is claimed, and the tables."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from p2f_lib import clip_summary as summary
from p2f_lib import evaluation
from p2f_lib.clip_evaluation import (
    AFFINE,
    CHOSEN,
    ONE_SHAPE,
    OWN,
    PLAIN,
    PNCC_ALONE,
    RAW,
    ClipRun,
)
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import menpo84_to_ibug68

RNG = np.random.default_rng(0)
FACE = RNG.normal(scale=30, size=(84, 3))
FACE[52], FACE[61] = (-50, 30, 40), (50, 30, 40)  # 100 mm apart, and 100 pixels


def shifted(by, frames):
    """Points that are all `by` pixels off to the right; in space as true as can be."""
    pixels = np.repeat(FACE[None, :, :2], frames, axis=0)
    pixels = pixels + np.asarray(by, float).reshape(-1, 1, 1) * [1, 0]
    return pixels, np.repeat(FACE[None], frames, axis=0)


def run_of(name, off, **changed):
    """A clip whose network is `off` pixels off in each frame, i.e. per cent of the interocular."""
    frames = len(off)
    truth, space = shifted(0, frames)
    off = np.array(off, float)
    made = {RAW: 2 * off, AFFINE: off + 1, PNCC_ALONE: off + 3, PLAIN: off, CHOSEN: off - 0.5}
    made[ONE_SHAPE] = off
    values = {
        "name": name,
        "frames": tuple(range(1, frames + 1)),
        "still": False,
        "truth": truth,
        "truth_space": space,
        "methods": {"this run": shifted(off, frames), "oracle": shifted(0, frames)},
        "variants": {"this run": {k: shifted(v, frames) for k, v in made.items()}},
        "yaw": np.linspace(-80, 80, frames),
        "yaw_is_true": True,
        "detected": np.ones(frames, bool),
    }
    return ClipRun(**(values | changed))


@pytest.fixture
def result():
    runs = [run_of("001", [1, 2, 3]), run_of("002", [4, np.nan], detected=np.array([True, False]))]
    return summary.summarise(runs, ["Clip 003 was left out: <b>it</b> is | broken."])


def test_errors_of_every_kind_by_hand(result):
    np.testing.assert_allclose(result.errors["2d"]["this run"], [0.01, 0.02, 0.03, 0.04, np.inf])
    np.testing.assert_allclose(result.errors["2d_inner"]["this run"][:4], [0.01, 0.02, 0.03, 0.04])
    width, height = np.ptp(FACE[:, :2], axis=0)
    off = np.array([1, 2, 3, 4])
    for kind, size in (
        ("2d_diagonal", np.hypot(width, height)),
        ("2d_size", (width * height) ** 0.5),
    ):
        np.testing.assert_allclose(result.errors[kind]["this run"][:4], off / size)
    for kind in ("3d", "3d_inner", "3d_mm", "3d_similarity_mm"):
        np.testing.assert_allclose(result.errors[kind]["this run"], 0, atol=1e-9)
    assert set(result.errors) == set(summary.KINDS)
    assert result.kinds == ("2d", "3d")


def test_similarity_forgives_size_and_rigid_alignment_does_not():
    runs = [run_of("001", [0, 0])]
    pixels, space = shifted(0, 2)
    runs = [replace(runs[0], methods={"this run": (pixels, 1.1 * space)})]
    result = summary.summarise(runs)
    for kind in ("3d", "3d_similarity_mm"):
        np.testing.assert_allclose(result.errors[kind]["this run"], 0, atol=1e-9)
    centred = FACE - FACE.mean(axis=0)
    expected = 0.1 * np.linalg.norm(centred, axis=1).mean()
    np.testing.assert_allclose(result.errors["3d_mm"]["this run"], expected)


def test_statistics_count_what_is_missing_as_failed(result):
    s = result.statistics["2d"]["this run"]
    assert s == evaluation.statistics(result.errors["2d"]["this run"], 0.08, 1e-4)
    assert (s.n_frames, s.n_missing, s.failure_rate) == (5, 1, pytest.approx(0.2))
    assert s.mean == pytest.approx(0.025)
    interval = result.intervals["2d"]["this run"]
    assert interval == evaluation.bootstrap_interval(
        result.errors["2d"]["this run"], [0, 0, 0, 1, 1], 2000
    )
    assert result.limits["3d_mm"] == pytest.approx((8.0, 0.01))
    np.testing.assert_array_equal(result.unit, [0, 0, 0, 1, 1])


def test_photographs_are_drawn_one_by_one():
    runs = [run_of("a", [1, 2, 3], still=True), run_of("b", [1, 2], still=True)]
    np.testing.assert_array_equal(summary.summarise(runs).unit, np.arange(5))


def test_claims_are_differences_on_the_same_frames(result):
    found = {(c.idea.split()[0], c.kind): c for c in result.claims}
    average = found["moving", "2d"]
    assert (average.n_frames, average.n_clips) == (4, 2)
    assert average.with_it == pytest.approx(0.025)
    assert average.without == pytest.approx(0.05)
    assert average.gain == pytest.approx(0.025)
    assert found["perspective", "2d"].gain == pytest.approx(0.01)
    # The offsets' rival is unsmoothed on both sides: 2 off against off + 3.
    assert found["offsets", "2d"].gain == pytest.approx(0.03 - 0.025)
    assert found["landmark", "2d"].gain == pytest.approx(0.005)
    # One shape changes nothing here, and nothing is claimed of it; nor is anything of 3D.
    assert {idea for idea, _ in found} == {"moving", "perspective", "offsets", "landmark"}
    gain = np.array([1, 1, 1, 1]) / 100
    expected = evaluation.bootstrap_interval(gain, [0, 0, 0, 1], 2000)
    assert found["perspective", "2d"].interval.low == pytest.approx(expected.low)


def test_a_tracker_of_68_points_is_compared_by_the_inner_ones(result):
    runs = [run_of("001", [1, 2, 3]), run_of("002", [4, 5])]
    few = [tuple(map(menpo84_to_ibug68, shifted([3, 3, 3], 3)))]
    few.append((np.full((2, 84, 2), np.nan), np.full((2, 84, 3), np.nan)))  # nothing for this clip
    runs = [
        replace(run, methods=run.methods | {"theirs": points})
        for run, points in zip(runs, few, strict=True)
    ]
    result = summary.summarise(runs)
    assert result.landmarks["theirs"].shape == (5, 68, 2)
    assert result.kinds == ("2d_inner", "3d_inner")
    assert "| 2D, 51 inner points, % of interocular | theirs | 5 |" in summary.table(result)
    assert "theirs" not in result.errors["2d"]
    assert "theirs" not in result.groups
    expected = [0.03, 0.03, 0.03, np.inf, np.inf]
    np.testing.assert_allclose(result.errors["2d_inner"]["theirs"], expected)
    assert result.statistics["2d_inner"]["theirs"].n_missing == 2


def test_who_says_nothing_is_named_and_who_says_nothing_of_space_has_no_3d():
    run = run_of("001", [1, 2])
    pixels, space = shifted([1, 1], 2)
    gaps = np.full_like(pixels, np.nan), np.full_like(space, np.nan)
    methods = run.methods | {"silent": gaps, "flat": (pixels, gaps[1])}
    result = summary.summarise([replace(run, methods=methods)])
    assert "silent" not in result.landmarks
    assert result.notes == ("silent: no prediction for any frame.",)
    assert "flat" in result.errors["2d"]
    assert "flat" not in result.errors["3d"]
    with pytest.raises(P2FError, match="No method has found a face"):
        summary.summarise([replace(run, methods={"silent": gaps})])


def test_clips_without_truth_in_space_count_in_2d_alone():
    known, unknown = run_of("001", [1, 2]), run_of("002", [3, 4])
    unknown = replace(unknown, truth_space=np.full((2, 84, 3), np.nan))
    del unknown.methods["oracle"]
    result = summary.summarise([known, unknown])
    assert "oracle" not in result.landmarks  # not of all clips
    assert result.statistics["2d"]["this run"].n_frames == 4
    assert result.statistics["3d"]["this run"].n_frames == 2
    assert result.statistics["3d"]["this run"].n_missing == 0
    nowhere = summary.summarise([unknown])
    assert nowhere.kinds == ("2d",)
    assert set(nowhere.errors) == {"2d", "2d_inner", "2d_diagonal", "2d_size"}


def test_parts_are_means_of_their_frames(result):
    assert summary.part_means(result, "clip") == {
        "this run": pytest.approx({"001": 0.02, "002": 0.04}),
        "oracle": pytest.approx({"001": 0, "002": 0}),
    }
    yaw = summary.part_means(result, "yaw", without=("oracle",))
    assert yaw == {"this run": pytest.approx({"0-15": 0.02, "60-90": np.mean([0.01, 0.03, 0.04])})}
    groups = summary.part_means(result, "group")
    assert groups["this run"]["nose"] == pytest.approx(0.025)
    assert set(groups["this run"]) >= {"jaw", "left_eye", "inner"}


def test_typical_frames_are_of_different_clips_where_there_are():
    errors = np.array([0.1, 0.2, 0.3, 0.4, 0.5, np.inf])
    clips = np.array([0, 0, 0, 1, 1, 1])
    assert summary.typical_frames(errors, clips, 2) == {
        "best": [0, 3],
        "median": [2, 3],
        "worst": [4, 2],
    }
    assert summary.typical_frames(errors, clips, 9)["best"] == [0, 3, 1, 2, 4]


def test_the_clip_with_interpolated_boxes_is_shown(result):
    np.testing.assert_array_equal(summary.rows_of_clip(result), [3, 4])
    assert result.main == "this run"


# --- tables -------------------------------------------------------------------------------------


def test_the_table_is_in_per_cent_but_millimetres_stay(result):
    lines = summary.table(result).splitlines()
    assert lines[0] == (
        "| error | method | frames | mean | 95 % interval | median | std | MAD | AUC | failures |"
    )
    assert lines[2].startswith("| 2D, % of interocular | this run | 5 | 2.50 | 2.00 to 4.00 | 2.50")
    assert lines[2].endswith(" 20.0 % |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        f"| {summary.KINDS[kind]}" for kind in summary.SHOWN for _ in range(2)
    ]
    assert summary.shown("2d", 0.0512) == "5.12"
    assert summary.shown("3d_mm", 2.345, "+") == "+2.35"
    one = summary.summarise([run_of("001", [1, 2])])
    assert "| - |" in summary.table(one)  # one clip tells no interval


def test_the_report_says_who_made_it_and_what_was_left_out(result):
    text = summary.report(result, "make this")
    assert text.startswith(
        "Made by `make this`: 5 frames of 2 clips. AUC by Simpson's rule up to 8 %"
    )
    cut = summary.report(result, "make this", 80)
    assert "2 clips (the first 80 of each; all: `-S evaluate.n_frames=null`). AUC" in cut
    assert "in steps of 0.01 % (mm: up to 8 in steps of 0.01)" in text
    assert "- Clip 003 was left out: &lt;b>it&lt;/b> is \\| broken." in text
    assert "| perspective instead of affine camera | 3.4 | this run |" in text
    assert "| 2.50 | 3.50 | +1.00 | +1.00 to +1.00 |" in text


def test_metrics_are_plain_rounded_numbers(result):
    metrics = summary.metrics(result)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    this_run = metrics["2d"]["this_run"]
    assert this_run["mean"] == 0.025
    assert (this_run["low"], this_run["high"]) == (0.02, 0.04)
    one = summary.metrics(summary.summarise([run_of("001", [1, 2])]))
    assert one["2d"]["this_run"]["low"] is None


def test_cumulative_errors_as_a_table(result, tmp_path):
    summary.write_ced(tmp_path, result, points=5)
    assert (tmp_path / "ced.csv").read_text() == (
        "error,this_run,oracle\n0,0,1\n0.02,0.4,1\n0.04,0.8,1\n0.06,0.8,1\n0.08,0.8,1\n"
    )
    assert (tmp_path / "ced_3d.csv").read_text().startswith("error,this_run,oracle\n0,")
    flat = replace(run_of("a", [1, 2]), truth_space=np.full((2, 84, 3), np.nan))
    summary.write_ced(tmp_path, summary.summarise([flat]))
    assert (tmp_path / "ced_3d.csv").read_text() == "error\n"


def test_the_curves_files_have_the_columns_of_the_pipeline():
    pipeline = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())
    for name in ("reports/ced.csv", "reports/ced_3d.csv"):
        (plot,) = (p[name] for p in pipeline["plots"] if name in p)
        assert [plot["x"], *plot["y"]] == ["error", *(m.replace(" ", "_") for m in OWN)]


def test_all_numbers_as_csv(result, tmp_path):
    summary.write_numbers(tmp_path / "evaluation.csv", result)
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    key = {(r["error"], r["by"], r["part"], r["method"]): r for r in rows}
    assert len(key) == len(rows)
    assert float(key["2d", "all", "all", "this run"]["mean"]) == 0.025
    assert key["2d", "clip", "002", "this run"]["n_missing"] == "1"
    assert float(key["2d", "yaw", "0-15", "this run"]["mean"]) == 0.02
    assert float(key["2d", "group", "jaw", "this run"]["mean"]) == 0.025
    kinds = {r["error"] for r in rows}
    assert kinds == set(summary.KINDS)


def test_a_part_in_which_nothing_was_found_is_all_failures(tmp_path):
    runs = [run_of("001", [1, 2]), run_of("002", [np.nan, np.nan])]
    summary.write_numbers(tmp_path / "evaluation.csv", summary.summarise(runs))
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["part"] == "002" and r["method"] == "this run"]
    assert {(r["mean"], r["auc"], r["failure_rate"]) for r in rows if r["error"] == "2d"} == {
        ("nan", "0", "1")
    }


def test_claims_as_csv(result, tmp_path):
    summary.write_claims(tmp_path / "claims.csv", result.claims)
    with (tmp_path / "claims.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.claims)
    assert float(rows[0]["gain"]) == pytest.approx(result.claims[0].gain, rel=1e-4)
    assert float(rows[0]["low"]) == pytest.approx(result.claims[0].interval.low, rel=1e-4)
