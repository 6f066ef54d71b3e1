"""The evaluation as one page that opens offline: curves under the mouse, and tables.

The page carries Plotly with it, once. The same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from plotly import graph_objects, io
from plotly.offline import get_plotlyjs

from p2f_lib.clip_summary import (
    CLAIMS,
    KINDS,
    STATISTICS,
    YAW_EDGES,
    Claim,
    ClipEvaluation,
    claim_rows,
    part_means,
    shown,
    statistic_rows,
    yaw_bins,
)
from p2f_lib.evaluation import cumulative_error
from p2f_lib.figures import CLAIMED, method_colors

N_CURVE = 201  # points of a curve
HEIGHT = 430  # pixels of a plot

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Pix2Face, open: clips</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; margin: 1em 0; font-size: 13px }}
th, td {{ border-bottom: 1px solid #ddd; padding: 2px 9px; text-align: right }}
th {{ background: #f4f4f4 }}
td:first-child, td:nth-child(2), th:first-child, th:nth-child(2) {{ text-align: left }}
img {{ max-width: 100% }}
code {{ background: #f4f4f4; padding: 0 3px }}
</style>
<script>{plotly}</script>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(
    path: str | Path,
    result: ClipEvaluation,
    command: str,
    pictures: Mapping[str, Figure] | None = None,
) -> None:
    """Write the page; it needs nothing beside it.

    Parameters
    ----------
    path : .html
    command : that made the numbers.
    pictures : {caption: figure} that it shows as well.
    """
    limit, step = result.limits["2d"]
    parts = [
        "<h1>Landmarks on clips</h1>",
        f"<p>{len(result.truth)} frames of {len(result.clips)} clips, made by "
        f"<code>{html.escape(command)}</code>. Click a name in a legend to hide its curve, "
        "double-click to see it alone.</p>",
        "<h2>Cumulative errors</h2>",
        *(_plot(f"ced-{kind}", _ced(result, kind)) for kind in result.kinds),
        f"<p>AUC and failures: up to {100 * limit:g} %, Simpson's rule in steps of "
        f"{100 * step:g} %; a frame without a prediction is a failure. Intervals (95 %) are of the "
        "mean, clips drawn with replacement.</p>",
        _table(STATISTICS, statistic_rows(result)),
        "<h2>Error against yaw</h2>",
        _plot("yaw", _yaw(result)),
        _by("Yaw, degrees", "yaw", result),
        "<h2>Error over time</h2>",
        _plot("time", _time(result)),
        _by("Clip", "clip", result),
        _by("Landmarks", "group", result),
        "<h2>What the paper's ideas are worth</h2>",
        "<p>The error without an idea minus the error with it: right of zero it helps.</p>",
        *(
            _plot(f"claims-{kind}", _claims(result.claims, kind))
            for kind in CLAIMED
            if any(claim.kind == kind for claim in result.claims)
        ),
        _table(CLAIMS, claim_rows(result.claims)),
    ]
    for caption, figure in (pictures or {}).items():
        parts += [f"<h2>{html.escape(caption)}</h2>", _picture(caption, figure)]
    if result.notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in result.notes)
        parts += ["<h2>Not used</h2>", f"<ul>{items}</ul>"]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(plotly=get_plotlyjs(), body="\n".join(parts)), encoding="utf-8")


# ---------------------------------------------------------------- plots


def _plot(name: str, figure: graph_objects.Figure) -> str:
    """A plot with an id of its own: by itself Plotly would draw one by lot."""
    figure.update_layout(
        height=HEIGHT, margin={"l": 60, "r": 20, "t": 40, "b": 50}, template="simple_white"
    )
    return io.to_html(figure, full_html=False, include_plotlyjs=False, div_id=name)


def _numbers(values: ArrayLike, decimals: int = 3) -> list[float | None]:
    """Rounded, None for what isn't finite: short and readable in the page."""
    rounded = np.asarray(values, dtype=float).round(decimals)
    return [float(value) if np.isfinite(value) else None for value in rounded]


def _name(method: str) -> str:
    """Plotly takes names for HTML; a folder's name is none."""
    return html.escape(method)


def _ced(result: ClipEvaluation, kind: str) -> graph_objects.Figure:
    figure = graph_objects.Figure()
    x = np.linspace(0, result.limits[kind][0], N_CURVE)
    for method, color in method_colors(list(result.errors[kind])).items():
        errors = result.errors[kind][method]
        share = cumulative_error(errors[~np.isnan(errors)], x)
        figure.add_scatter(
            x=_numbers(100 * x),
            y=_numbers(share, 4),
            name=_name(method),
            line={"color": color},
            hovertemplate="%{y:.1%} of the frames within %{x:.2f} %",
        )
    figure.update_xaxes(title=KINDS[kind], range=[0, 100 * x[-1]])
    figure.update_yaxes(title="share of the frames", range=[0, 1.02])
    return figure


def _yaw(result: ClipEvaluation) -> graph_objects.Figure:
    figure = graph_objects.Figure()
    kind = result.kinds[0]
    frames = [
        f"{html.escape(result.clips[clip])}, frame {html.escape(str(frame))}"
        for clip, frame in zip(result.frame_clip, result.frames, strict=True)
    ]
    middles = {
        name: np.abs(result.yaw[rows]).mean() for name, rows in yaw_bins(result)
    }  # where the bins' frames lie
    means = part_means(result, "yaw", kind=kind)
    for method, color in method_colors(list(result.errors[kind])).items():
        legend = {"name": _name(method), "legendgroup": _name(method)}
        figure.add_scatter(
            x=_numbers(np.abs(result.yaw), 1),
            y=_numbers(100 * result.errors[kind][method]),
            mode="markers",
            marker={"color": color, "size": 4, "opacity": 0.35},
            text=frames,
            hovertemplate="%{text}: %{y:.2f} % at %{x:.0f}°",
            showlegend=False,
            **legend,
        )
        bins = means.get(method, {})
        figure.add_scatter(
            x=_numbers([middles[name] for name in bins], 1),
            y=_numbers([100 * mean for mean in bins.values()]),
            mode="lines+markers",
            line={"color": color},
            hovertemplate="mean %{y:.2f} %",
            **legend,
        )
    truth = "true" if result.yaw_is_true else "as the network sees it where nobody knows"
    figure.update_xaxes(title=f"|yaw|, degrees ({truth})", range=[0, YAW_EDGES[-1]])
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    figure.update_yaxes(title=KINDS[kind], type="log", tickvals=ticks, minor={"ticks": ""})
    return figure


def _time(result: ClipEvaluation) -> graph_objects.Figure:
    """One clip at a time, chosen from a list."""
    figure = graph_objects.Figure()
    kind = result.kinds[0]
    colors = method_colors(list(result.errors[kind]))
    traces_of = []
    for number, clip in enumerate(result.clips):
        rows = np.flatnonzero(result.frame_clip == number)
        names = [result.frames[row] for row in rows]
        x = names if all(isinstance(name, int) for name in names) else list(range(len(names)))
        for method, color in colors.items():
            figure.add_scatter(
                x=x,
                y=_numbers(100 * result.errors[kind][method][rows]),
                name=_name(method),
                line={"color": color},
                visible=number == 0,
                hovertemplate="frame %{x}: %{y:.2f} %",
            )
        missed = [x[k] for k, row in enumerate(rows) if not result.detected[row]]
        figure.add_scatter(
            x=missed,
            y=[0] * len(missed),
            name="box interpolated",
            mode="markers",
            marker={"color": "#b71c1c", "symbol": "line-ns-open", "size": 12},
            visible=number == 0,
        )
        traces_of.append((clip, len(colors) + 1))
    buttons: list[dict[str, Any]] = []
    for number, (clip, count) in enumerate(traces_of):
        visible = [k // count == number for k in range(count * len(traces_of))]
        buttons.append({"label": _name(clip), "method": "update", "args": [{"visible": visible}]})
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.15, "yanchor": "top"}
    figure.update_layout(updatemenus=[menu])
    figure.update_xaxes(title="frame")
    figure.update_yaxes(title=KINDS[kind], rangemode="tozero")
    return figure


def _claims(claims: Sequence[Claim], kind: str) -> graph_objects.Figure:
    figure = graph_objects.Figure()
    factor, label = CLAIMED[kind]
    shown_claims = [claim for claim in claims if claim.kind == kind]
    colors = method_colors(list(dict.fromkeys(claim.network for claim in shown_claims)))
    ideas = list(dict.fromkeys(claim.idea for claim in shown_claims))
    for k, (network, color) in enumerate(colors.items()):
        rows = [claim for claim in shown_claims if claim.network == network]
        gains = np.array([claim.gain for claim in rows])
        high = np.array([claim.interval.high for claim in rows]) - gains
        low = gains - np.array([claim.interval.low for claim in rows])
        figure.add_scatter(
            x=_numbers(factor * gains),
            y=[ideas.index(claim.idea) + 0.2 * k for claim in rows],
            text=[claim.idea for claim in rows],
            error_x={
                "type": "data",
                "array": _numbers(factor * high),
                "arrayminus": _numbers(factor * low),
            },
            mode="markers",
            marker={"color": color, "size": 9},
            name=_name(network),
            hovertemplate="%{text}: %{x:+.2f}",
        )
    figure.update_xaxes(title=label, zeroline=True, zerolinecolor="#222")
    figure.update_yaxes(
        autorange="reversed", automargin=True, tickvals=list(range(len(ideas))), ticktext=ideas
    )
    return figure


# ---------------------------------------------------------------- tables and pictures


def _by(title: str, by: str, result: ClipEvaluation) -> str:
    kind = result.kinds[0]
    means = part_means(result, by, kind="2d" if by == "group" else kind)
    parts = list(dict.fromkeys(part for found in means.values() for part in found))
    rows = [
        [part.replace("_", " ")]
        + [shown(kind, found[part]) if part in found else "-" for found in means.values()]
        for part in parts
    ]
    return _table([title, *means], rows) if rows else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"


def _picture(caption: str, figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=80, bbox_inches="tight", facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{data}">'
