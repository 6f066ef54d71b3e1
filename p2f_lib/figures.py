"""Every figure of the report: each function returns a figure, `save` writes stable bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import matplotlib
import numpy as np
from IPython.display import Image
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from plotly import graph_objects

from p2f_lib.camera import AffineCamera, Camera, Pose, rotation_from_pose
from p2f_lib.evaluation import bins_of, cumulative_error
from p2f_lib.morphable_model import boundary_loops, vertex_normals
from p2f_lib.rasterizer import interpolate, rasterize

if TYPE_CHECKING:
    from p2f_lib.ablation import Outcome
    from p2f_lib.clip_summary import Claim
    from p2f_lib.datasets.menpo3d import Clip
    from p2f_lib.evaluation import Statistics
    from p2f_lib.export import TexturedMesh
    from p2f_lib.groups import GroupErrors
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.reconstruction import Face
    from p2f_lib.synthesis import Sample

PNCC_RANGE = 150.0  # mm shown as 0..1, symmetric about the origin
OFFSET_RANGE = 20.0
LANDMARK_COLOR = "#39ff14"
INSIDE_COLOR = (0.22, 0.13, 0.12)  # of the mouth
SHEET_SIZE = 150  # pixels a side of a face on the contact sheet


def save(figure: Figure, path: str | Path, dpi: int = 110) -> None:
    """Write PNG, SVG or JPEG whose bytes depend on the figure alone: no dates, no random ids."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    without = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    options: dict[str, Any] = {"bbox_inches": "tight", "facecolor": "white"}
    with matplotlib.rc_context({"svg.hashsalt": "pix2face", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=dpi, metadata=without.get(path.suffix), **options)


def preview(figure: Figure, dpi: int = 70) -> Image:
    """A small JPEG of a figure to end a notebook's cell with: `save` keeps the sharp one."""
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, bbox_inches="tight", facecolor="white")
    return Image(buffer.getvalue(), format="jpeg")


def _grid(rows: int, columns: int, size: float = 1.6) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * size), squeeze=False, layout="constrained"
    )
    plt.close(figure)  # shown by the notebook as a value, not twice
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


# ---------------------------------------------------------------- pictures of arrays


def pncc_colors(pncc: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W, 3) mm to displayable (H, W, 3) in 0..1, white outside `valid`."""
    colors = np.clip(pncc / (2 * PNCC_RANGE) + 0.5, 0, 1)
    return np.where(valid[..., None], colors, 1.0)


def offset_colors(offsets: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W, 3) mm to displayable (H, W, 3) in 0..1; mid-grey is no offset."""
    colors = np.clip(offsets / (2 * OFFSET_RANGE) + 0.5, 0, 1)
    return np.where(valid[..., None], colors, 1.0)


def frontal_camera(vertices: np.ndarray, size: int, yaw: float = 0.0) -> AffineCamera:
    """Orthographic view that fits a mesh (V, 3) into a square picture, turned by `yaw` degrees."""
    return _posed_camera(vertices, size, Pose(yaw, 0.0, 0.0))


def _posed_camera(vertices: np.ndarray, size: int, pose: Pose) -> AffineCamera:
    linear = rotation_from_pose(pose)[:2]
    turned = vertices @ linear.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = 0.94 * size / (high - low).max()
    linear, shift = scale * linear, (size - 1) / 2 - scale * (low + high) / 2
    return AffineCamera(np.column_stack([linear, shift]))


def shaded(
    vertices: np.ndarray,
    triangles: np.ndarray,
    camera: Camera,
    height: int,
    width: int,
    color: tuple[float, float, float] = (0.82, 0.76, 0.72),
) -> tuple[np.ndarray, np.ndarray]:
    """A mesh under a head light: (H, W, 3) in 0..1 and the mask (H, W) of what it covers."""
    normals = vertex_normals(vertices, triangles)
    pixels, depth = camera.project(vertices), camera.depth(vertices)
    raster = rasterize(pixels, depth, triangles, height, width)
    toward = np.asarray(camera.rotation)[2]
    light = np.clip(-(normals @ toward), 0, 1) ** 0.8
    planes = interpolate(raster, triangles, light[:, None].astype(np.float32))[..., 0]
    mask = raster.triangle_id >= 0
    image = np.clip((0.25 + 0.75 * planes)[..., None] * np.asarray(color), 0, 1)
    return np.where(mask[..., None], image, 1.0), mask


def textured(mesh: TexturedMesh, camera: Camera, height: int, width: int) -> np.ndarray:
    """A textured mesh without any light but the photo's: (H, W, 3) in 0..1, white around it.

    `camera` sees a picture of 2 * `height` x 2 * `width`, of which each 2 x 2 pixels are averaged.
    """
    vertex, coordinate, triangles = mesh.unshared()
    pixels, depth = camera.project(mesh.vertices), camera.depth(mesh.vertices)
    raster = rasterize(pixels[vertex], depth[vertex], triangles, 2 * height, 2 * width)
    size = np.array(mesh.image.shape[1::-1])
    places = (mesh.coordinates[coordinate] * [1, -1] + [0, 1]) * size - 0.5
    where = interpolate(raster, triangles, places)
    colors = cv2.remap(  # type: ignore[call-overload]  # one map of x and y needs no second
        mesh.image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    image = np.where(raster.valid[..., None], colors / 255, 1.0)
    return image.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))


# ---------------------------------------------------------------- face model and ground truth


def portrait(
    vertices: np.ndarray,
    triangles: np.ndarray,
    camera: AffineCamera,
    size: int,
    loops: Sequence[np.ndarray],
) -> np.ndarray:
    """A mesh whose holes, the boundary `loops`, are dark, so that an open mouth looks like one.

    `camera` sees a picture of 2 * `size` pixels a side, of which each 2 x 2 are averaged.

    Returns
    -------
    (size, size, 3) in 0..1, white around the face.
    """
    image, _ = shaded(vertices, triangles, camera, 2 * size, 2 * size)
    if loops:
        hubs, fans = caps(vertices, loops)
        closed = np.concatenate([vertices, hubs])
        triangles_and_fans = np.concatenate([triangles, fans])
        raster = rasterize(
            camera.project(closed), camera.depth(closed), triangles_and_fans, 2 * size, 2 * size
        )
        image[raster.triangle_id >= len(triangles)] = INSIDE_COLOR
    return image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))


def caps(vertices: np.ndarray, loops: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What closes the holes of a mesh (V, 3) whose boundary `loops` are given.

    Returns
    -------
    (H, 3) hubs, one a hole, whose numbers follow those of the vertices, and (F, 3) triangles.
    """
    hubs = np.array([vertices[loop].mean(axis=0) for loop in loops])
    fans = [
        np.column_stack([np.roll(loop, -1), loop, np.full(len(loop), len(vertices) + i)])
        for i, loop in enumerate(loops)
    ]
    return hubs.reshape(-1, 3), np.concatenate([np.zeros((0, 3), int), *fans])


def face_model(
    model: MorphableModel,
    modes: int = 4,
    people: Sequence[np.ndarray] = (),
    columns: int | None = None,
) -> Figure:
    """Contact sheet: the mean, the first modes at +-3 standard deviations, and given meshes.

    With more `columns` than the modes need, the mean is also seen from further to the side.
    """
    used = 1 + 2 * modes
    columns = max(columns or used, used)
    figure, axes = _grid(1 + -(-len(people) // columns), columns, 1.3)
    loops = boundary_loops(model.triangles)[1:]  # but for the outline

    def show(axis: plt.Axes, vertices: np.ndarray, title: str = "", yaw: float = 0.0) -> None:
        camera = frontal_camera(1.08 * model.mean, 2 * SHEET_SIZE, yaw)  # room for longer faces
        axis.imshow(portrait(vertices, model.triangles, camera, SHEET_SIZE, loops))
        axis.set_title(title, fontsize=7)

    show(axes[0, 0], model.mean, "mean")
    for mode in range(modes):
        for side, sign in enumerate((-3, 3)):
            shape = np.zeros(model.n_shape, np.float32)
            shape[mode] = sign * model.shape_sigma[mode]
            show(
                axes[0, 1 + 2 * mode + side], model.vertices(shape), f"mode {mode + 1}, {sign:+d}σ"
            )
    for spare, axis in enumerate(axes[0, used:], 1):
        show(axis, model.mean, f"mean, yaw {45 * spare}°", 45.0 * spare)
    for axis, vertices in zip(axes[1:].flat, people, strict=False):
        show(axis, vertices)
    return figure


def concepts(model: MorphableModel, sample: Sample) -> Figure:
    """What the words mean: the planes of a face and what follows, axes and angles.

    Parameters
    ----------
    sample : a picture with its truth; small ones are enough.
    """
    figure, axes = _grid(2, 5, 2.1)
    height, width = sample.valid.shape
    points = (sample.pncc + sample.offsets)[sample.valid]
    vertices = model.vertices(sample.shape, sample.expression)
    mesh, mask = shaded(vertices, model.triangles, sample.camera, height, width)
    over = np.where(mask[..., None], mesh, sample.image / 255)
    pictures = {
        "picture, pixels": sample.image,
        "PNCC: which point of\nthe mean face, mm": pncc_colors(sample.pncc, sample.valid),
        "offsets: how far this face\nlies from it, mm": offset_colors(sample.offsets, sample.valid),
        "mesh through the camera": over,
    }
    places = (0, 1, 2, 4)
    for place, (title, picture) in zip(places, pictures.items(), strict=True):
        axes[0, place].imshow(picture)
        axes[0, place].set_title(title, fontsize=8)
    _arrow(axes[0, 0], (0, 0), (0.3 * width, 0), "x")
    _arrow(axes[0, 0], (0, 0), (0, 0.3 * height), "y")
    _point_cloud(axes[0, 3], points, sample.image[sample.valid], yaw=-20.0)
    axes[0, 3].set_title("PNCC + offsets:\npoint cloud, mm", fontsize=8)
    size = 2 * SHEET_SIZE
    heads = {
        "model space, mm": Pose(0.0, 0.0, 0.0),
        "the same from the side": Pose(90.0, 0.0, 0.0),
        "yaw +30°": Pose(30.0, 0.0, 0.0),
        "pitch +20°": Pose(0.0, 20.0, 0.0),
        "roll +20°": Pose(0.0, 0.0, 20.0),
    }
    for axis, (title, pose) in zip(axes[1], heads.items(), strict=True):
        camera = _posed_camera(1.25 * model.mean, size, pose)
        image, _ = shaded(model.mean, model.triangles, camera, size, size)
        axis.imshow(image)
        axis.set_title(title, fontsize=8)
        ends = {"x": (120, 0, 0), "y": (0, 130, 0), "z": (0, 0, 130)}
        start, *tips = camera.project(np.array([(0, 0, 0), *ends.values()], float))
        for name, tip in zip(ends, tips, strict=True):
            if np.linalg.norm(tip - start) > 0.08 * size:  # else it points at the camera
                _arrow(axis, start, tip, name)
    return figure


def _arrow(axis: plt.Axes, start: Sequence[float], end: Sequence[float], name: str) -> None:
    color = {"x": "#d1495b", "y": "#2a9d3a", "z": "#2f5dd0"}[name]
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    tip = (end[0], end[1])
    axis.annotate("", tip, (start[0], start[1]), arrowprops=style, annotation_clip=False)
    axis.annotate(
        name, tip, (4, -2), textcoords="offset points", color=color, fontsize=9, weight="bold"
    )


def landmark_map(model: MorphableModel, markup: str) -> Figure:
    """The numbered landmark vertices on the mean face, from the front and from the side."""
    figure, axes = _grid(1, 2, 6.0)
    for axis, yaw in zip(axes[0], (0, -50), strict=True):
        camera = frontal_camera(model.mean, 600, yaw)
        axis.imshow(shaded(model.mean, model.triangles, camera, 600, 600)[0])
        points = camera.project(model.mean[model.landmarks[markup]])
        axis.plot(*points.T, ".", color="#c2185b", markersize=3)
        for number, (x, y) in enumerate(points):
            axis.text(x + 3, y - 2, str(number), fontsize=5, color="#0d47a1")
    figure.suptitle(f"{markup}: {len(model.landmarks[markup])} vertices (0-based)", fontsize=9)
    return figure


def contact_sheet(
    images: np.ndarray, planes: np.ndarray, valid: np.ndarray, columns: int = 8, side: int = 72
) -> np.ndarray:
    """Samples as a picture: each cell a photograph with its PNCC and its offsets.

    Parameters
    ----------
    images : (N, H, W, 3) uint8.
    planes : (N, H, W, 6) mm, PNCC and offsets.
    valid : (N, H, W) bool.
    columns : cells a row.
    side : pixels of each of a cell's three pictures.

    Returns
    -------
    (H', W', 3) uint8.
    """
    cells = []
    for image, plane, mask in zip(images, planes, valid, strict=True):
        parts = [
            image,
            np.uint8(255 * pncc_colors(plane[..., :3], mask)),
            np.uint8(255 * offset_colors(plane[..., 3:], mask)),
        ]
        scaled = [cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts]
        cells.append(np.pad(np.hstack(scaled), ((2, 2), (3, 3), (0, 0)), constant_values=255))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[k : k + columns]) for k in range(0, len(cells), columns)])


def picture(image: np.ndarray, quality: int = 80) -> Image:
    """A (H, W, 3) uint8 picture as a JPEG to end a notebook's cell with."""
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    coded = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return Image(coded.tobytes(), format="jpeg")


def ablation(outcomes: Sequence[Outcome]) -> Figure:
    """What leaving out each ingredient costs, on photographs where they were measured.

    The band is the range of the runs that leave out nothing, which differ by their seed only.
    """
    whole = [outcome for outcome in outcomes if outcome.left_out == "nothing"]
    others = [outcome for outcome in outcomes if outcome.left_out != "nothing"]
    measured = all(np.isfinite(outcome.photos) for outcome in outcomes)
    kinds = [("synthetic", "synthetic people, 68 points, % of the box")]
    if measured:
        kinds.insert(0, ("photos", "photographs, 51 inner points, % of the eyes' distance"))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(4.6 * len(kinds), 0.24 * len(others) + 0.9), squeeze=False,
        sharey=True, layout="constrained",
    )  # fmt: skip
    plt.close(figure)
    order = sorted(others, key=lambda outcome: getattr(outcome, kinds[0][0]))
    for axis, (field, title) in zip(axes[0], kinds, strict=True):
        values = [getattr(outcome, field) for outcome in order]
        reference = [getattr(outcome, field) for outcome in whole]
        axis.barh([f"without {o.left_out}" for o in order], values, color="#6b8fb5", height=0.7)
        axis.axvspan(min(reference), max(reference), color="#d1495b", alpha=0.35, zorder=3)
        axis.set_xlim(0.8 * min(values + reference), 1.02 * max(values + reference))
        axis.set_title(title, fontsize=8, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def groups(rows: Sequence[GroupErrors], pictures: Mapping[tuple[str, str], np.ndarray]) -> Figure:
    """Errors by group with their intervals, and how often a detector finds the face.

    Parameters
    ----------
    pictures : (kind, group) -> (H, W, 3) uint8, an example of each group.
    """
    kinds = {row.kind: [r for r in rows if r.kind == row.kind] for row in rows}
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(0.72 * len(rows) + 0.6, 3.1), sharex="col", layout="constrained",
        width_ratios=[len(members) for members in kinds.values()], height_ratios=(1, 2.2),
        squeeze=False,
    )  # fmt: skip
    plt.close(figure)
    top = 100 * max(row.high for row in rows)
    for column, (kind, members) in enumerate(kinds.items()):
        above, below = axes[:, column]
        strip = np.hstack([pictures[kind, row.group] for row in members])
        above.imshow(strip, extent=(-0.5, len(members) - 0.5, 0, 1), aspect="auto")
        above.set_axis_off()
        above.set_title(kind, fontsize=9, loc="left")
        mean, low, high = (
            100 * np.array([getattr(row, name) for row in members])
            for name in ("landmarks", "low", "high")
        )
        below.errorbar(
            range(len(members)), mean, (mean - low, high - mean), fmt="o", color="#2f5d8a",
            capsize=3, markersize=4,
        )  # fmt: skip
        for place, row in enumerate(members):
            share = f"{100 * row.detected:.0f} %"
            below.text(place, 0.04 * top, share, ha="center", fontsize=7, color="#8a5a2f")
        below.set_ylim(0, 1.05 * top)
        below.set_xticks(range(len(members)), [row.group for row in members], fontsize=7)
        below.tick_params(axis="y", labelsize=7)
        below.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("68 points, % of the box;\nbelow: found by dlib", fontsize=7)
    return figure


# ---------------------------------------------------------------- reconstructions


def _point_cloud(axis: plt.Axes, points: np.ndarray, colors: np.ndarray, yaw: float) -> None:
    """Points painted back to front as seen from `yaw` degrees."""
    angle = np.deg2rad(yaw)
    x = points[:, 0] * np.cos(angle) + points[:, 2] * np.sin(angle)
    z = points[:, 2] * np.cos(angle) - points[:, 0] * np.sin(angle)
    order = np.argsort(z)
    axis.scatter(x[order], points[order, 1], s=4, c=colors[order] / 255, linewidths=0)
    axis.set_aspect("equal")
    axis.set(xlim=(-115, 115), ylim=(-115, 125))


def _zoom(axis: plt.Axes, face: Face, image: np.ndarray, scale: float = 1.0) -> None:
    crop, (height, width) = face.crop, image.shape[:2]
    left, top = (corner - (scale - 1) / 2 * crop.side for corner in (crop.left, crop.top))
    side = scale * crop.side
    axis.set_xlim(max(left, -0.5), min(left + side, width - 0.5))
    axis.set_ylim(min(top + side, height - 0.5), max(top, -0.5))


def figure1(images: Sequence[np.ndarray], faces: Sequence[Face]) -> Figure:
    """Paper Figure 1: input, PNCC, offsets, and the point cloud from two views."""
    figure, axes = _grid(len(faces), 5, 2.0)
    for row, image, face in zip(axes, images, faces, strict=True):
        row[0].imshow(image)
        _zoom(row[0], face, image)
        row[1].imshow(pncc_colors(face.pncc, face.valid))
        row[2].imshow(offset_colors(face.offsets, face.valid))
        _point_cloud(row[3], face.points, face.point_colors, -25)
        _point_cloud(row[4], face.points, face.point_colors, 40)
    titles = ("input", "PNCC", "offsets", "points from the left", "points from the right")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return figure


def figure2(
    images: Sequence[np.ndarray], faces: Sequence[Face], localized: Sequence[np.ndarray]
) -> Figure:
    """Paper Figure 2: input, localised mesh vertices, fitted mesh over the photo, mesh alone.

    `localized` holds per photo the (N, 2) picture pixels of the localised vertices.
    """
    figure, axes = _grid(len(faces), 4, 2.4)
    for row, image, face, pixels in zip(axes, images, faces, localized, strict=True):
        height, width = image.shape[:2]
        mesh, mask = shaded(face.vertices, face.triangles, face.camera, height, width)
        for axis in row:
            axis.imshow(image)
            _zoom(axis, face, image)
        row[1].scatter(*pixels.T, s=0.8, c=LANDMARK_COLOR, linewidths=0)
        overlay = np.where(mask[..., None], 0.35 * image / 255 + 0.65 * mesh, image / 255)
        row[2].imshow(overlay)
        row[3].imshow(mesh)
    titles = ("input", "localised vertices", "fitted mesh over the photo", "fitted mesh")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return figure


def textures(
    images: Sequence[np.ndarray],
    faces: Sequence[Face],
    yaws: Sequence[float] = (-60, -30, 0, 30, 60),
    size: int = 240,
) -> Figure:
    """Photo, texture as the photo shows it and completed, and the textured mesh turned.

    Parameters
    ----------
    images, faces : photos, each with its face.
    yaws : degrees that the mesh is turned by.
    size : pixels a side of a turned mesh.
    """
    figure, axes = _grid(len(faces), 3 + len(yaws), 2.0)
    for row, image, face in zip(axes, images, faces, strict=True):
        row[0].imshow(image)
        _zoom(row[0], face, image)
        whole = face.texture()
        row[1].imshow(face.texture(complete=False).image)
        row[2].imshow(whole.image)
        mesh = face.textured_mesh(whole)
        for axis, yaw in zip(row[3:], yaws, strict=True):
            camera = frontal_camera(face.vertices, 2 * size, yaw)
            axis.imshow(textured(mesh, camera, size, size))
    titles = ("photo", "texture", "completed", *(f"yaw {yaw:g}°" for yaw in yaws))
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    return figure


def rerenderings(
    images: Sequence[np.ndarray],
    faces: Sequence[Face],
    views: Sequence[Sequence[Sequence[tuple[str, np.ndarray]]]],
) -> Figure:
    """Photos and their re-renderings, cut about the faces: a row a kind and photo.

    `images` are (H, W, 3) uint8, the photos of `faces`; `views[i]` are those of photo i as
    `p2f_lib.rerender.examples` makes them.
    """
    kinds = len(views[0])
    widest = max(len(pictures) for pictures in views[0])
    figure, axes = _grid(kinds * len(faces), 1 + widest, 1.7)
    for i, (image, face) in enumerate(zip(images, faces, strict=True)):
        for kind, pictures in enumerate(views[i]):
            row = axes[kind * len(faces) + i]
            for axis, (title, picture) in zip(row, [("photo", image), *pictures], strict=False):
                axis.imshow(picture, interpolation="antialiased")
                _zoom(axis, face, image, 1.35)
                axis.set_title(title, fontsize=7)
    return figure


def stages(face: Face, size: int = 220) -> list[tuple[str, np.ndarray]]:
    """What becomes of a photo, step by step: titles and (size, size, 3) uint8 pictures.

    The photo about the face with its box and landmarks, what the network sees and says, the
    vertices found in it, and the fitted mesh over the photo.
    """
    shown, crop = face.photo, face.photo_crop
    camera = face.camera.transformed(crop.from_picture)
    mesh, mask = shaded(face.vertices, face.triangles, camera, *shown.shape[:2])
    over = np.where(mask[..., None], 0.35 * shown / 255 + 0.65 * mesh, shown / 255)
    marked = cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)
    scale = size / len(shown)
    left, top, right, bottom = face.box.as_tuple()
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    sides = np.rint(crop.points_from_picture(corners) * scale).astype(int)
    marked = cv2.polylines(marked, [sides], True, (255, 200, 0), 1, cv2.LINE_AA)
    color = tuple(bytes.fromhex(LANDMARK_COLOR[1:]))
    for point in np.rint(crop.points_from_picture(face.landmarks("ibug68")) * scale).astype(int):
        marked = cv2.circle(marked, point.tolist(), 1, color, -1, cv2.LINE_AA)
    found = cv2.resize(face.image, (size, size), interpolation=cv2.INTER_LINEAR)
    places = np.rint((face.localized.pixels + 0.5) * size / len(face.image)).astype(int)
    found[tuple(places.clip(0, size - 1).T[::-1])] = color
    pictures = {
        "photo, box, landmarks": marked,
        "the network's crop": face.image,
        "PNCC": pncc_colors(face.pncc, face.valid),
        "offsets": offset_colors(face.offsets, face.valid),
        "vertices found": found,
        "fitted mesh": over,
    }
    return [(title, _square(picture, size)) for title, picture in pictures.items()]


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture, uint8 or in 0..1, as uint8 of `size` pixels a side."""
    if picture.dtype != np.uint8:
        picture = np.rint(255 * picture).astype(np.uint8)
    way = cv2.INTER_AREA if len(picture) > size else cv2.INTER_NEAREST
    return cv2.resize(picture, (size, size), interpolation=way)


def plotly_axes(points: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 3) mm in model space as Plotly's x, y and z, each (N,), whose z is up.

    Turned about x; to swap y and z would mirror the face.
    """
    x, y, z = np.ascontiguousarray(points.T)  # Plotly's widgets send the bytes as they lie
    return {"x": x, "y": -z, "z": y}


def plotly_scene(width: int, height: int, eye: tuple[float, float, float]) -> dict:
    """Layout of a 3D view without axes; `eye` in Plotly's axes, (0, -1.6, 0) before the face."""
    scene: dict[str, Any] = {f"{axis}axis": {"visible": False} for axis in "xyz"}
    scene |= {"aspectmode": "data", "camera": {"eye": dict(zip("xyz", eye, strict=True))}}
    margin = dict.fromkeys("lrtb", 0)
    return {"scene": scene, "margin": margin, "width": width, "height": height}


def plotly_colors(colors: np.ndarray) -> list[str]:
    """(N, 3) uint8 to what Plotly calls colours."""
    return [f"rgb({r},{g},{b})" for r, g, b in colors.tolist()]


def interactive_points(face: Face) -> graph_objects.Figure:
    """The network's coloured point cloud, to be turned with the mouse."""
    marker = {"size": 3, "color": plotly_colors(face.point_colors)}
    axes = plotly_axes(np.round(face.points, 1))
    cloud = graph_objects.Scatter3d(mode="markers", marker=marker, hoverinfo="skip", **axes)
    return graph_objects.Figure(cloud, plotly_scene(480, 420, (0.4, -1.6, 0.2)))


def landmarks_over(
    images: Sequence[np.ndarray],
    points: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int = 3,
    truth: Sequence[np.ndarray] = (),
    size: float = 3.0,
) -> Figure:
    """Pictures with landmarks; true ones as white rings where given (paper Figure 4)."""
    rows = -(-len(images) // columns)
    figure, axes = _grid(rows, min(columns, len(images)), size)
    for number, (axis, image, shown) in enumerate(zip(axes.flat, images, points, strict=False)):
        axis.imshow(image)
        if len(truth):
            axis.plot(*truth[number].T, "o", mfc="none", mec="white", markersize=3, mew=0.5)
        axis.plot(*shown.T, ".", color=LANDMARK_COLOR, markersize=2.5 * size / 3)
        everything = np.concatenate([shown, truth[number]]) if len(truth) else shown
        low, high = everything.min(0), everything.max(0)
        margin = 0.25 * (high - low).max()
        axis.set_xlim(max(low[0] - margin, -0.5), min(high[0] + margin, image.shape[1] - 0.5))
        axis.set_ylim(min(high[1] + margin, image.shape[0] - 0.5), max(low[1] - margin, -0.5))
        if len(titles):
            axis.set_title(titles[number], fontsize=8)
    return figure


def landmark_errors(before: np.ndarray, after: np.ndarray) -> Figure:
    """Mean error of each landmark's vertex before and after the choice of section 4.

    `before` and `after` are (L,) fractions of the interocular distance.
    """
    figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
    plt.close(figure)
    _error_bars(axis, before, after)
    return figure


def landmark_choice(
    model: MorphableModel,
    start: np.ndarray,
    chosen: np.ndarray,
    errors: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Figure:
    """Where the choice of section 4 moved the landmarks, and what that does to their errors.

    Parameters
    ----------
    model : whose mean face is shown.
    start, chosen : (L,) vertices.
    errors : {photographs: errors (L,) before and after}, fractions of the interocular distance.
    """
    figure = plt.figure(figsize=(12, 5.2), layout="constrained")
    plt.close(figure)
    grid = figure.add_gridspec(len(errors), 4)
    for column, yaw in enumerate((0, -60)):
        axis = figure.add_subplot(grid[:, column])
        camera = frontal_camera(model.mean, 700, yaw)
        axis.imshow(shaded(model.mean, model.triangles, camera, 700, 700)[0])
        before, after = (camera.project(model.mean[rows]) for rows in (start, chosen))
        axis.plot(*np.stack([before, after], 2).transpose(1, 2, 0), color="#b71c1c", linewidth=0.8)
        axis.plot(*before.T, "o", color="#b71c1c", markersize=3, fillstyle="none", label="before")
        axis.plot(*after.T, ".", color="#0d47a1", markersize=4, label="after")
        axis.axis("off")
    axis.legend(fontsize=8, loc="lower right")
    for row, (name, (before, after)) in enumerate(errors.items()):
        axis = figure.add_subplot(grid[row, 2:])
        _error_bars(axis, before, after)
        known = [values for values in (before, after) if np.isfinite(values).any()]
        means = " -> ".join(f"{100 * np.nanmean(values):.2f} %" for values in known)
        axis.set_title(f"{name}: {means}", fontsize=9)
    return figure


def _error_bars(axis: plt.Axes, before: np.ndarray, after: np.ndarray) -> None:
    axis.bar(np.arange(len(before)), 100 * before, color="#bdbdbd", label="before")
    axis.bar(np.arange(len(after)), 100 * after, color="#1b5e20", width=0.4, label="after")
    axis.set(xlabel="landmark", ylabel="% of the interocular distance", xlim=(-1, len(before)))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3, axis="y")


def several_photos(errors: np.ndarray) -> Figure:
    """Error of the shape (people, photos), mm, against the number of photos (Eq. 5)."""
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    plt.close(figure)
    photos = np.arange(1, errors.shape[1] + 1)
    axis.plot(photos, errors.T, color="#bdbdbd", linewidth=0.8)
    axis.plot(photos, errors.mean(axis=0), "o-", color="#1b5e20", label="mean over people")
    axis.set(xlabel="photos of the person", ylabel="vertex error, mm", xticks=photos)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


# ---------------------------------------------------------------- evaluation


KINDS = {
    "2d": "2D: mean error / interocular distance, %",
    "3d": "3D: mean error after similarity alignment / interocular distance, %",
    "2d_inner": "2D, 51 inner points: mean error / interocular distance, %",
    "3d_inner": "3D, 51 inner points: error after similarity / interocular distance, %",
}
# The same method has the same look everywhere; others, a tracker's of one's own, get the rest.
METHODS = {
    "this run": "#1f5fa8",
    "released weights": "#1b7f3b",
    "mean face in the box": "#8a8a8a",
    "oracle": "#b9770e",
}
# Kind of error of a claim -> factor and label.
CLAIMED = {
    "2d": (100.0, "gain in 2D, % of interocular (right: it helps)"),
    "3d_mm": (1.0, "gain in 3D, mm (right: it helps)"),
}
OTHERS = ("#c2185b", "#6a3d9a", "#00838f", "#5d4037", "#e64a19")


def oracle(
    subsets: Sequence[int],
    degrees: np.ndarray,
    milliseconds: np.ndarray,
    photos: Sequence[int],
    shape_mm: np.ndarray,
) -> Figure:
    """What true planes with known faults give: cameras from subsets, shapes from several photos.

    `degrees`, `milliseconds` are (S, people) of `p2f_lib.oracle.camera_by_subset`, `shape_mm` is
    (P, people) of `shape_by_photos`. Bands hold the middle half of the people.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    plt.close(figure)
    for axis, x, values in zip(
        axes, (subsets, subsets, photos), (degrees, milliseconds, shape_mm), strict=True
    ):
        low, middle, high = np.percentile(values, (25, 50, 75), axis=1)
        axis.fill_between(x, low, high, alpha=0.2, linewidth=0)
        axis.plot(x, middle, marker="o", markersize=3)
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.set(xscale="log", yscale="log", xlabel="pixels that decide the camera")
    axes[0].set(ylabel="degrees", title="Head pose")
    axes[1].set(ylabel="ms", title="Time of both cameras")
    axes[2].set(
        xlabel="photos", ylabel="mm", ylim=(0, None), xticks=photos, title="Neutral mesh (Eq. 5)"
    )
    return figure


def method_colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method, always the same for the project's own."""
    rest = [name for name in names if name not in METHODS]
    others = {name: OTHERS[k % len(OTHERS)] for k, name in enumerate(rest)}
    return {name: METHODS.get(name) or others[name] for name in names}


def error_by_yaw(
    errors: Mapping[str, np.ndarray], yaw: np.ndarray, edges: Sequence[float], limit: float
) -> Figure:
    """Mean error of each method against how far the head is turned, on a logarithmic axis.

    Parameters
    ----------
    errors : {method: (F,)} fractions of the interocular distance.
    yaw : (F,) degrees.
    edges : of the bins of |yaw|.
    limit : of a failure, drawn as a line.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    plt.close(figure)
    number = bins_of(np.abs(yaw), edges)
    used = [k for k in range(len(edges) - 1) if (number == k).any()]
    places = np.arange(len(used))
    for name, color in method_colors(list(errors)).items():
        values = np.array(errors[name])
        parts = [values[(number == k) & np.isfinite(values)] for k in used]
        means = [100 * part.mean() if part.size else np.nan for part in parts]
        axis.plot(places, means, "o-", color=color, markersize=4, label=name)
    axis.axhline(100 * limit, color="#b71c1c", linewidth=0.8, linestyle=":")
    axis.text(places[0], 100 * limit, "failure", color="#b71c1c", fontsize=7, va="bottom")
    labels = [f"{edges[k]:g} to {edges[k + 1]:g}\n{(number == k).sum()} frames" for k in used]
    axis.set(xlabel="|yaw|, degrees", ylabel="mean 2D error, % of interocular", yscale="log")
    axis.set_xticks(places, labels, fontsize=8)
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    axis.set_yticks(ticks, list(map(str, ticks)))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=2)
    return figure


def error_over_time(
    frames: Sequence[float],
    errors: Mapping[str, np.ndarray],
    detected: np.ndarray,
    limit: float,
    title: str = "",
) -> Figure:
    """Errors in a clip, with marks below where the detector's box was interpolated.

    Parameters
    ----------
    frames : (F,) numbers.
    errors : {method: (F,)} fractions of the interocular distance.
    detected : (F,) bool.
    limit : of a failure, drawn as a line.
    """
    figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
    plt.close(figure)
    for name, color in method_colors(list(errors)).items():
        values = np.where(np.isfinite(errors[name]), errors[name], np.nan)
        axis.plot(frames, 100 * values, color=color, linewidth=1.2, label=name)
    axis.axhline(100 * limit, color="#b71c1c", linewidth=0.8, linestyle=":")
    missed = np.asarray(frames)[~np.asarray(detected)]
    if len(missed):
        axis.plot(missed, np.zeros(len(missed)), "|", color="#b71c1c", markersize=14, mew=2,
                  label="box interpolated")  # fmt: skip
    axis.set(xlabel="frame", ylabel="2D error, % of interocular", title=title)
    axis.set_ylim(bottom=0)
    axis.margins(x=0.01)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=3)
    return figure


def error_by_part(parts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Mean errors by landmark group, by clip or by anything else, a panel each.

    Parameters
    ----------
    parts : {panel: {method: {part: mean error}}}, fractions of the interocular distance.
    """
    figure, axes = plt.subplots(
        1, len(parts), figsize=(5.5 * len(parts), 3.4), squeeze=False, layout="constrained"
    )
    plt.close(figure)
    for axis, (panel, methods) in zip(axes[0], parts.items(), strict=True):
        names = list(dict.fromkeys(part for means in methods.values() for part in means))
        height = 0.8 / len(methods)
        for k, (method, color) in enumerate(method_colors(list(methods)).items()):
            means = [100 * methods[method].get(name, np.nan) for name in names]
            places = np.arange(len(names)) + (k - (len(methods) - 1) / 2) * height
            axis.barh(places, means, height, color=color, label=method)
        axis.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.set(xlabel="mean 2D error, % of interocular", title=f"by {panel}")
        axis.grid(alpha=0.3, axis="x")
    axes[0, -1].legend(fontsize=7)
    return figure


def claims(outcomes: Sequence[Claim]) -> Figure:
    """What the paper's ideas are worth, with 95 % intervals by clip; right of zero they help."""
    kinds = [kind for kind in CLAIMED if any(c.kind == kind for c in outcomes)]
    ideas = list(dict.fromkeys(c.idea for c in outcomes))
    colors = method_colors(list(dict.fromkeys(c.network for c in outcomes)))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(4.2 * len(kinds) + 2.2, 0.5 * len(ideas) + 1.1), squeeze=False,
        sharey=True, layout="constrained",
    )  # fmt: skip
    plt.close(figure)
    for axis, kind in zip(axes[0], kinds, strict=True):
        factor, label = CLAIMED[kind]
        for k, (network, color) in enumerate(colors.items()):
            rows = [c for c in outcomes if c.kind == kind and c.network == network]
            places = [ideas.index(c.idea) + 0.24 * (k - (len(colors) - 1) / 2) for c in rows]
            ends = np.array([(c.interval.low, c.interval.high) for c in rows]).reshape(-1, 2)
            axis.hlines(places, *(factor * ends.T), color=color, linewidth=1.5)
            axis.plot([factor * c.gain for c in rows], places, "o", color=color, label=network)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(xlabel=label)
        axis.set_yticks(range(len(ideas)), ideas)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(fontsize=7, loc="lower right")
    return figure


def figure7(
    errors: Mapping[str, Mapping[str, np.ndarray]],
    statistics: Mapping[str, Mapping[str, Statistics]],
    limit: float,
    kinds: Sequence[str] = ("2d", "3d"),
) -> Figure:
    """Paper Figure 7: cumulative error curves of the 2D and of the 3D error.

    Parameters
    ----------
    errors : {kind: {method: (F,)}} with the kinds of `KINDS`, fractions; NaN doesn't count
    statistics : {kind: {method: Statistics}}, for the legend
    limit : right end of the axes
    kinds : an axes each
    """
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(5.5 * len(kinds), 3.8), squeeze=False, layout="constrained"
    )
    plt.close(figure)
    x = np.linspace(0, limit, 401)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for name, color in method_colors(list(errors[kind])).items():
            values, stats = errors[kind][name], statistics[kind][name]
            legend = f"{name}: mean {100 * stats.mean:.2f} %, AUC {stats.auc:.3f}"
            curve = cumulative_error(values[~np.isnan(values)], x)
            axis.plot(100 * x, curve, color=color, label=legend)
        axis.set(xlabel=KINDS[kind], ylabel="share of the frames", ylim=(0, 1.02))
        axis.set_xlim(0, 100 * limit)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower right")
    return figure


def clip_frames(clips: Sequence[Clip], titles: Sequence[str], columns: int = 9) -> Figure:
    """Contact sheet of a data set: a row a clip, frames evenly spread over it, with their points.

    Parameters
    ----------
    clips : annotated videos.
    titles : one each, what the clip shows.
    columns : frames of a clip.
    """
    height, width = next(iter(clips[0])).shape[:2]
    figure, axes = plt.subplots(
        len(clips), columns, figsize=(1.5 * columns, (1.5 * height / width + 0.2) * len(clips)),
        squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.2},
    )  # fmt: skip
    plt.close(figure)
    for row, clip, title in zip(axes, clips, titles, strict=True):
        chosen = np.linspace(0, len(clip) - 1, columns).round().astype(int)
        images = dict(enumerate(clip))
        for axis, index in zip(row, chosen, strict=True):
            axis.imshow(images[index])
            axis.plot(*clip.projected[index].T, ".", color=LANDMARK_COLOR, markersize=0.7)
            axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axis.set_axis_off()
        row[0].set_title(f"{clip.name}  {title}", fontsize=7, loc="left", pad=2)
    return figure
