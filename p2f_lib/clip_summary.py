"""Errors of everybody who looked at the clips: statistics, intervals, the paper's claims, tables.

Fractions stay fractions (0.05 is 5 %) until they are written into a table for people.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib import evaluation
from p2f_lib.clip_evaluation import (
    AFFINE,
    CHOSEN,
    ONE_SHAPE,
    PLAIN,
    PNCC_ALONE,
    RAW,
    THIS_RUN,
    ClipRun,
    Points,
)
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import (
    Interval,
    Statistics,
    bins_of,
    bootstrap_interval,
    errors_2d,
    errors_2d_inner,
    errors_3d_inner,
    errors_3d_rigid,
    errors_3d_similarity,
)
from p2f_lib.landmarks import menpo84_to_ibug68

KINDS = {
    "2d": "2D, % of interocular",
    "2d_inner": "2D, 51 inner points, % of interocular",
    "2d_diagonal": "2D, % of the box's diagonal",
    "2d_size": "2D, % of the box's sqrt(w h)",
    "3d": "3D, % of interocular",
    "3d_inner": "3D, 51 inner points, % of interocular",
    "3d_mm": "3D, mm",
    "3d_similarity_mm": "3D after similarity alignment, mm",
}
"""Kinds of error; those in mm are not per cent."""

SHOWN = ("2d", "3d", "3d_mm")  # in the short table, beside the kinds of the curves
YAW_EDGES = (0.0, 15.0, 30.0, 45.0, 60.0, 90.0)  # degrees of |yaw|


@dataclass(frozen=True)
class Idea:
    """One of the paper's ideas: the variants with and without it (None: the method as it is)."""

    name: str
    paper: str
    with_it: str | None
    without: str | None
    kinds: tuple[str, ...] = ("2d", "3d_mm")


IDEAS = (
    Idea("moving average of the 2D landmarks", "4.1", None, RAW, ("2d",)),
    Idea("perspective instead of affine camera", "3.4", None, AFFINE, ("2d",)),
    Idea("offsets beside the PNCC", "3.1", RAW, PNCC_ALONE),
    Idea("landmark vertices chosen on annotated frames", "4", CHOSEN, PLAIN),
    Idea("one shape for all frames of a clip", "Eq. 5", ONE_SHAPE, None),
)


@dataclass(frozen=True)
class Claim:
    """What an idea is worth: the error without it minus the error with it.

    Attributes
    ----------
    idea, paper : the idea, and where the paper has it.
    network : that was used.
    kind : of error, a key of `KINDS`.
    n_frames, n_clips : where both have an answer.
    with_it, without : mean errors there.
    gain : `without` minus `with_it`; above zero the idea helps.
    interval : of the gain, by clip.
    """

    idea: str
    paper: str
    network: str
    kind: str
    n_frames: int
    n_clips: int
    with_it: float
    without: float
    gain: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class ClipEvaluation:
    """Predictions of several methods on annotated clips, and their errors.

    Attributes
    ----------
    clips : their names.
    landmarks : {method: (F, L', 2)} pixels, all clips one after the other.
    truth : (F, L, 2)
    errors : {kind: {method: (F,)}}, see `KINDS`; inf where a method says nothing, NaN where there
        is no truth.
    statistics, intervals : {kind: {method: ...}}; intervals are those of the means, by clip.
    groups : {method: {landmark group: (F,)}} 2D errors over the interocular distance.
    claims : what the paper's ideas are worth.
    limits : {kind: (limit, step)} of AUC and failure rate.
    frame_clip, frames : (F,) which clip, and the frame's number or name in it.
    unit : (F,) what intervals draw as a whole: the clip, or the photograph.
    yaw : (F,) degrees; NaN where nobody knows.
    yaw_is_true : it is the truth's.
    detected : (F,) False where the box was interpolated.
    notes : sentences on clips and files that could not be used.
    """

    clips: tuple[str, ...]
    landmarks: Mapping[str, np.ndarray]
    truth: np.ndarray
    errors: Mapping[str, Mapping[str, np.ndarray]]
    statistics: Mapping[str, Mapping[str, Statistics]]
    intervals: Mapping[str, Mapping[str, Interval]]
    groups: Mapping[str, Mapping[str, np.ndarray]]
    claims: tuple[Claim, ...]
    limits: Mapping[str, tuple[float, float]]
    frame_clip: np.ndarray
    frames: tuple[int | str, ...]
    unit: np.ndarray
    yaw: np.ndarray
    yaw_is_true: bool
    detected: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """The method whose frames are shown: this run, or the first that found a face."""
        return THIS_RUN if THIS_RUN in self.landmarks else next(iter(self.landmarks))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the curves in 2D and in 3D: of all points, or of the inner ones where a tracker has
        68 points and the truth 84."""
        kinds = "2d", "3d"
        if any(points.shape != self.truth.shape for points in self.landmarks.values()):
            kinds = "2d_inner", "3d_inner"
        return tuple(kind for kind in kinds if kind in self.errors)


def summarise(
    runs: Sequence[ClipRun],
    notes: Sequence[str] = (),
    *,
    limit: float = 0.08,
    limit_box: float = 0.05,
    limit_mm: float = 8.0,
    step: float = 1e-4,
    draws: int = 2000,
) -> ClipEvaluation:
    """Errors of all methods over all clips.

    Parameters
    ----------
    runs : of `p2f_lib.clip_evaluation.run_source`.
    notes : on what was left out before.
    limit : of AUC and failure rate, interocular distances.
    limit_box, limit_mm : the same for errors over the box, and in mm.
    step : of the CED, for every limit: in interocular distances, over the box; in mm it is as many
        times larger as its limit.
    draws : sets of clips that decide the intervals.
    """
    methods, missing = _methods(runs)
    notes = [*notes, *(note for run in runs for note in run.notes), *missing]
    truth = np.concatenate([run.truth for run in runs])
    space = np.concatenate([run.truth_space for run in runs])
    landmarks = {name: _joined([run.methods[name] for run in runs]) for name in methods}
    by_method = {name: _errors(points, truth, space, KINDS) for name, points in landmarks.items()}
    errors = {
        kind: {name: found[kind] for name, found in by_method.items() if kind in found}
        for kind in KINDS
    }
    limits = dict.fromkeys(KINDS, (limit, step))
    limits |= dict.fromkeys(("2d_diagonal", "2d_size"), (limit_box, step))
    limits |= dict.fromkeys(("3d_mm", "3d_similarity_mm"), (limit_mm, limit_mm * step / limit))
    numbers: list[int] = []
    clip = np.repeat(np.arange(len(runs)), [len(run.frames) for run in runs])
    for run in runs:
        start = numbers[-1] + 1 if numbers else 0
        numbers += range(start, start + len(run.frames)) if run.still else [start] * len(run.frames)
    unit = np.array(numbers)
    return ClipEvaluation(
        clips=tuple(run.name for run in runs),
        landmarks={name: points for name, (points, _) in landmarks.items()},
        truth=truth,
        errors={kind: found for kind, found in errors.items() if found},
        statistics={
            kind: {
                name: evaluation.statistics(e[~np.isnan(e)], *limits[kind])
                for name, e in found.items()
            }
            for kind, found in errors.items()
            if found
        },
        intervals={
            kind: {name: bootstrap_interval(e, unit, draws) for name, e in found.items()}
            for kind, found in errors.items()
            if found
        },
        groups={
            name: _group_errors(points, truth)
            for name, (points, _) in landmarks.items()
            if points.shape == truth.shape
        },
        claims=tuple(_claims(runs, truth, space, unit, draws)),
        limits=limits,
        frame_clip=clip,
        frames=tuple(frame for run in runs for frame in run.frames),
        unit=unit,
        yaw=np.concatenate([run.yaw for run in runs]),
        yaw_is_true=all(run.yaw_is_true for run in runs),
        detected=np.concatenate([run.detected for run in runs]),
        notes=tuple(notes),
    )


def _methods(runs: Sequence[ClipRun]) -> tuple[list[str], list[str]]:
    """Names of the methods that have something to say, and sentences on the others."""
    methods, notes = [], []
    for name in dict.fromkeys(name for run in runs for name in run.methods):
        known = [run.methods[name] for run in runs if name in run.methods]
        if len(known) < len(runs):  # the oracle, where some truth is unknown
            continue
        if not any(np.isfinite(pixels).all(axis=(1, 2)).any() for pixels, _ in known):
            notes.append(f"{name}: no prediction for any frame.")
            continue
        methods.append(name)
    if not methods:
        raise P2FError("No method has found a face in any frame; nothing to summarise.")
    return methods, notes


def _joined(parts: Sequence[Points]) -> Points:
    """Of all clips; 84 points become 68 where another clip has no more."""
    if len({pixels.shape[1] for pixels, _ in parts}) > 1:
        parts = [
            (pixels, space)
            if pixels.shape[1] == 68
            else (menpo84_to_ibug68(pixels), menpo84_to_ibug68(space))
            for pixels, space in parts
        ]
    all_pixels, all_space = zip(*parts, strict=True)
    return np.concatenate(all_pixels), np.concatenate(all_space)


def _errors(
    points: Points, truth: np.ndarray, truth_space: np.ndarray, kinds: Iterable[str]
) -> dict[str, np.ndarray]:
    """{kind: (F,)} of those kinds that these points can be measured by."""
    pixels, space = points
    whole = pixels.shape == truth.shape
    found: dict[str, Callable[[], np.ndarray]] = {
        "2d_inner": lambda: errors_2d_inner(pixels, truth)
    }
    if whole:
        found["2d"] = lambda: errors_2d(pixels, truth)
        found["2d_diagonal"] = lambda: errors_2d(pixels, truth, "diagonal")
        found["2d_size"] = lambda: errors_2d(pixels, truth, "size")
    size = evaluation.interocular_distance(truth_space)
    with np.errstate(invalid="ignore"):
        rows = np.isfinite(size) & (size > 0)
    if rows.any() and np.isfinite(space).all(axis=(1, 2)).any():
        measures: dict[str, Callable[..., np.ndarray]] = {"3d_inner": errors_3d_inner}
        if whole:
            measures |= {"3d": errors_3d_similarity, "3d_mm": errors_3d_rigid}
            measures["3d_similarity_mm"] = lambda p, t: (
                errors_3d_similarity(p, t) * evaluation.interocular_distance(t)
            )

        def of_rows(measure: Callable[..., np.ndarray]) -> np.ndarray:
            return _on(rows, measure(space[rows], truth_space[rows]))

        found |= {kind: partial(of_rows, measure) for kind, measure in measures.items()}
    return {kind: found[kind]() for kind in kinds if kind in found}


def _on(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(F,) values on some rows, NaN on the others."""
    result = np.full(len(rows), np.nan)
    result[rows] = values
    return result


def _group_errors(points: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    size = evaluation.interocular_distance(truth)
    groups = evaluation.group_errors(evaluation.point_errors(points, truth))
    return {name: errors / size for name, errors in groups.items()}


def _claims(
    runs: Sequence[ClipRun],
    truth: np.ndarray,
    truth_space: np.ndarray,
    unit: np.ndarray,
    draws: int,
) -> Iterator[Claim]:
    for network in reversed(list(runs[0].variants)):  # the best one first
        for idea in IDEAS:
            sides: list[dict[str, np.ndarray]] = []
            for variant in (idea.with_it, idea.without):
                parts = [
                    run.methods[network] if variant is None else run.variants[network].get(variant)
                    for run in runs
                ]
                known = [part for part in parts if part is not None]
                if len(known) == len(parts):
                    sides.append(_errors(_joined(known), truth, truth_space, idea.kinds))
                else:
                    sides.append({})
            for kind in idea.kinds:
                if all(kind in side for side in sides):
                    with_it, without = (side[kind] for side in sides)
                    yield from _claim(idea, network, kind, with_it, without, unit, draws)


def _claim(
    idea: Idea,
    network: str,
    kind: str,
    with_it: np.ndarray,
    without: np.ndarray,
    unit: np.ndarray,
    draws: int,
) -> Iterator[Claim]:
    both = np.isfinite(with_it) & np.isfinite(without)
    if both.any() and not np.array_equal(with_it, without, equal_nan=True):
        gain = without[both] - with_it[both]
        yield Claim(
            idea=idea.name,
            paper=idea.paper,
            network=network,
            kind=kind,
            n_frames=int(both.sum()),
            n_clips=len(np.unique(unit[both])),
            with_it=float(with_it[both].mean()),
            without=float(without[both].mean()),
            gain=float(gain.mean()),
            interval=bootstrap_interval(gain, unit[both], draws),
        )


def typical_frames(errors: np.ndarray, clips: np.ndarray, count: int) -> dict[str, list[int]]:
    """Rows of the best, the median and the worst frames, of different clips as far as there are.

    Parameters
    ----------
    errors, clips : (F,); frames without a finite error are none of them.
    count : of each sort.
    """
    order = [int(row) for row in np.argsort(errors, kind="stable") if np.isfinite(errors[row])]
    middle = len(order) // 2
    nearest = sorted(range(len(order)), key=lambda place: abs(place - middle))
    sorts = {
        "best": order,
        "median": [order[place] for place in nearest],
        "worst": order[::-1],
    }
    return {name: _spread(rows, clips, count) for name, rows in sorts.items()}


def rows_of_clip(result: ClipEvaluation) -> np.ndarray:
    """Rows of the clip to show over time: the one with the most interpolated boxes."""
    missed = np.bincount(result.frame_clip, ~result.detected, minlength=len(result.clips))
    return np.flatnonzero(result.frame_clip == missed.argmax())


def _spread(rows: Sequence[int], clips: np.ndarray, count: int) -> list[int]:
    first: dict[int, int] = {}  # of each clip
    for row in rows:
        first.setdefault(int(clips[row]), row)
    ahead = list(first.values())
    return (ahead + [row for row in rows if row not in set(ahead)])[:count]


# ---------------------------------------------------------------- tables


STATISTICS = [
    "error",
    "method",
    "frames",
    "mean",
    "95 % interval",
    "median",
    "std",
    "MAD",
    "AUC",
    "failures",
]
CLAIMS = ["idea", "paper", "network", "error", "with", "without", "gain", "95 % interval"]


def statistic_rows(result: ClipEvaluation, kinds: Sequence[str] = tuple(KINDS)) -> list[list[str]]:
    """Cells under `STATISTICS`, as people read them; a row a method and kind of error."""
    return [
        [
            KINDS[kind],
            name,
            str(s.n_frames),
            shown(kind, s.mean),
            shown_interval(kind, result.intervals[kind][name]),
            *(shown(kind, value) for value in (s.median, s.std, s.mad)),
            f"{s.auc:.3f}",
            f"{100 * s.failure_rate:.1f} %",
        ]
        for kind, methods in result.statistics.items()
        if kind in kinds
        for name, s in methods.items()
    ]


def claim_rows(claims: Sequence[Claim]) -> list[list[str]]:
    """Cells under `CLAIMS`."""
    return [
        [
            *(c.idea, c.paper, c.network, KINDS[c.kind]),
            *(shown(c.kind, value) for value in (c.with_it, c.without)),
            shown(c.kind, c.gain, "+"),
            shown_interval(c.kind, c.interval, "+"),
        ]
        for c in claims
    ]


def table(result: ClipEvaluation) -> str:
    """The most telling numbers as a Markdown table."""
    return _markdown(STATISTICS, statistic_rows(result, (*SHOWN, *result.kinds)))


def claims_table(claims: Sequence[Claim]) -> str:
    """What the paper's ideas are worth as a Markdown table."""
    return _markdown(CLAIMS, claim_rows(claims))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (columns, *rows)]
    lines.insert(1, "|" + "---|" * len(columns))
    return "\n".join(lines) + "\n"


def report(result: ClipEvaluation, command: str, n_frames: int | None = None) -> str:
    """Both tables in Markdown, with what one has to know to read them.

    Parameters
    ----------
    command : that made them.
    n_frames : at most so many frames of each clip were looked at; None for all.
    """
    cut = f" (the first {n_frames} of each; all: `-S evaluate.n_frames=null`)" if n_frames else ""
    (limit, step), (limit_mm, step_mm) = result.limits["2d"], result.limits["3d_mm"]
    lines = [
        f"Made by `{command}`: {len(result.truth)} frames of {len(result.clips)} clips{cut}. AUC "
        f"by Simpson's rule up to {100 * limit:g} % in steps of {100 * step:g} % (mm: up to "
        f"{limit_mm:g} in steps of {step_mm:g}); frames beyond have failed, those without a "
        "prediction, too. Intervals are of the mean, clips drawn with replacement.",
        "",
        table(result),
        "What the paper's ideas are worth (error without minus error with; above zero they help):",
        "",
        claims_table(result.claims),
    ]
    if result.notes:
        lines += ["Not used:", "", *(f"- {_cell(note)}" for note in result.notes), ""]
    return "\n".join(lines)


def metrics(result: ClipEvaluation) -> dict[str, dict[str, dict[str, float | None]]]:
    """The statistics as nested plain numbers, rounded, for `dvc metrics`."""
    return {
        kind: {
            name.replace(" ", "_"): {
                key: None if value != value else round(float(value), 5)
                for key, value in (asdict(s) | asdict(result.intervals[kind][name])).items()
            }
            for name, s in methods.items()
        }
        for kind, methods in result.statistics.items()
    }


def write_ced(folder: str | Path, result: ClipEvaluation, points: int = 161) -> None:
    """The curves of Figure 7 as ``ced.csv`` and ``ced_3d.csv``: ``error`` and a column a method.

    Without any truth in space the second has no rows.
    """
    for name, space in (("ced.csv", False), ("ced_3d.csv", True)):
        kinds = [kind for kind in result.kinds if kind.startswith("3d") == space]
        methods = result.errors[kinds[0]] if kinds else {}
        with Path(folder, name).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["error", *(method.replace(" ", "_") for method in methods)])
            if methods:
                x = np.linspace(0, result.limits[kinds[0]][0], points)
                curves = [evaluation.cumulative_error(e[~np.isnan(e)], x) for e in methods.values()]
                writer.writerows([f"{v:.6g}" for v in row] for row in np.column_stack([x, *curves]))


def write_numbers(path: str | Path, result: ClipEvaluation) -> None:
    """All numbers as CSV: every kind of error, overall, by clip, by |yaw| and by landmark group."""
    names = [field.name for field in fields(Statistics)]
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["error", "by", "part", "method", *names, "low", "high"])
        for kind, by, part, method, errors, unit in _parts(result):
            s = _statistics(errors, *result.limits[kind])
            interval = bootstrap_interval(errors, unit)
            values = [*asdict(s).values(), interval.low, interval.high]
            writer.writerow(
                [kind, by, part, method]
                + [f"{v:.5g}" if isinstance(v, float) else v for v in values]
            )


def write_claims(path: str | Path, claims: Sequence[Claim]) -> None:
    """`Claim` rows as CSV; fractions and mm."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in fields(Claim) if field.name != "interval"]
        writer.writerow([*names, "low", "high"])
        for claim in claims:
            values = [getattr(claim, name) for name in names]
            values += [claim.interval.low, claim.interval.high]
            writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in values])


def yaw_bins(result: ClipEvaluation) -> Iterator[tuple[str, np.ndarray]]:
    """The bins of |yaw| that hold frames: their name in degrees, and (F,) bool."""
    number = bins_of(np.abs(result.yaw), YAW_EDGES)
    for k, (low, high) in enumerate(pairwise(YAW_EDGES)):
        if (number == k).any():
            yield f"{low:g}-{high:g}", number == k


def part_means(
    result: ClipEvaluation, by: str, without: Sequence[str] = (), kind: str = "2d"
) -> dict[str, dict[str, float]]:
    """{method: {part: mean error}} of the frames with a prediction.

    Parameters
    ----------
    by : "clip", "yaw" or "group".
    without : methods that are left out.
    """
    means: dict[str, dict[str, float]] = {}
    for its_kind, its_by, part, method, errors, _ in _parts(result):
        found = errors[np.isfinite(errors)]
        if (its_kind, its_by) == (kind, by) and method not in without and found.size:
            means.setdefault(method, {})[part] = float(found.mean())
    return means


def _parts(
    result: ClipEvaluation,
) -> Iterator[tuple[str, str, str, str, np.ndarray, np.ndarray]]:
    """Kind, what by, which part, method, errors and units of every row of numbers."""
    everything = np.ones(len(result.truth), bool)
    cuts = [("all", "all", everything)]
    cuts += [("clip", c, result.frame_clip == k) for k, c in enumerate(result.clips)]
    cuts += [("yaw", name, rows) for name, rows in yaw_bins(result)]
    for kind, methods in result.errors.items():
        for by, part, rows in cuts:
            for method, errors in methods.items():
                used = rows & ~np.isnan(errors)
                if used.any():
                    yield kind, by, part, method, errors[used], result.unit[used]
    for method, groups in result.groups.items():
        for group, errors in groups.items():
            used = ~np.isnan(errors)
            if used.any():
                yield "2d", "group", group, method, errors[used], result.unit[used]


def _statistics(errors: np.ndarray, limit: float, step: float) -> Statistics:
    """As `evaluation.statistics`; a part where nothing was found has NaN for its means."""
    if np.isfinite(errors).any():
        return evaluation.statistics(errors, limit, step)
    nan = float("nan")
    return Statistics(len(errors), len(errors), nan, nan, nan, nan, nan, 0.0, 1.0)


def shown(kind: str, value: float, sign: str = "") -> str:
    """A number as people read it: per cent, or mm."""
    return f"{value if kind.endswith('_mm') else 100 * value:{sign}.2f}"


def shown_interval(kind: str, interval: Interval, sign: str = "") -> str:
    """As `shown`; a dash where too few clips say anything."""
    if np.isnan(interval.low):
        return "-"
    return f"{shown(kind, interval.low, sign)} to {shown(kind, interval.high, sign)}"


def _cell(text: Any) -> str:
    """Names and sentences of files, which nobody vouches for, in a Markdown table."""
    return (
        str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    )
