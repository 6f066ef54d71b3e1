"""The page of notebooks/explore.ipynb: photos in; planes, a mesh that moves, and files out.

Widgets and what ties them together; all that they show is computed by the rest of the library.
Photos stay in the memory of the page's own process and go with it.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import ipywidgets as widgets
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image
from plotly import graph_objects

from p2f_lib import figures
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.images import decode_image, read_image
from p2f_lib.landmarks import MARKUPS
from p2f_lib.morphable_model import boundary_loops, vertex_normals
from p2f_lib.reconstruction import Face, Reconstructor, neutral_mesh, share_shape
from p2f_lib.robustness import PORTRAITS, bundled_picture

MAX_UPLOAD = 20 * 2**20  # bytes of a photo
MAX_FACES = 24  # that are kept; the oldest go first
SHAPE_SLIDERS = 6
EXPRESSION_SLIDERS = (
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFunnel",
    "mouthPucker",
    "browInnerUp",
    "browOuterUpLeft",
    "eyeBlinkLeft",
    "eyeBlinkRight",
)
FORMATS = ("glb", "obj", "ply", "json")
FARTHEST = 6.0  # mm that the colours of a comparison reach
RAISED = 2.0  # mm of the landmarks above the mesh
EYE = 1.25  # distance of the view, in sides of the cube about the mesh
VIEWS = {"mesh": "fitted mesh", "points": "the network's points"}


class Explorer:
    """Everything on the page; show `page`.

    Parameters
    ----------
    reconstructor : default: the released weights, loaded when the first photo comes

    Attributes
    ----------
    page : the widget that holds all others
    faces : list of Face, as `chooser` names them
    face : the one that is shown, None before the first
    vertices : (V, 3) mm, the mesh as the sliders have it
    """

    def __init__(self, reconstructor: Reconstructor | None = None) -> None:
        self._reconstructor = reconstructor
        self.faces: list[Face] = []
        self._names: list[str] = []
        self.face: Face | None = None
        self.vertices = np.zeros((0, 3), np.float32)
        self.distance: np.ndarray | None = None  # (V,) mm, from the face of a comparison
        self._busy = False

        self.bundled = widgets.Dropdown(options=["", *PORTRAITS], description="bundled")
        self.upload = widgets.FileUpload(accept="image/*", multiple=True, description="Upload")
        self.path = widgets.Text(placeholder="path of a photo", continuous_update=False)
        self.status = widgets.HTML("Choose a photo: a bundled one, your own, or by its path.")
        self.progress = widgets.IntProgress(0, 0, 1, layout={"width": "160px", "display": "none"})
        self.chooser = widgets.Select(rows=5, description="faces")
        self.stages = widgets.HTML()
        self.view = widgets.ToggleButtons(
            options={text: key for key, text in VIEWS.items()}, style={"button_width": "auto"}
        )
        self.markup = widgets.Dropdown(options=["no landmarks", *MARKUPS], description="landmarks")
        self.detail = widgets.HTML("Click a landmark to see its vertex.")
        self.plot = widgets.Box(layout={"min_width": "520px", "min_height": "480px"})
        self.shape: list[widgets.FloatSlider] = []
        self.expression: list[widgets.FloatSlider] = []
        self.yaw, self.pitch = (_slider(name, 0, 75, 1) for name in ("turn", "lift"))
        self.sliders = widgets.HBox()
        self.fitted = widgets.Button(description="As fitted")
        self.mean = widgets.Button(description="Mean face")
        self.second = widgets.Dropdown(description="compare")
        self.several = widgets.SelectMultiple(rows=4, description="one person")
        self.share = widgets.Button(description="One shape for these", layout={"width": "auto"})
        self.format = widgets.Dropdown(options=FORMATS, description="file")
        self.export = widgets.Button(description="Export")
        self.link = widgets.HTML()
        self.page = self._lay_out()
        self._connect()

    # --- what the page does -----------------------------------------------------------------------

    def open(self, image: np.ndarray, name: str) -> None:
        """Find and fit the faces of a uint8 RGB picture (H, W, 3); the best one is shown.

        Raises
        ------
        NoFaceError, P2FError
            As of `Reconstructor`.
        """
        if self._reconstructor is None:
            self._say("Loading the network; the very first photo takes up to a minute.")
            self._reconstructor = Reconstructor.from_pretrained()
        self._say(f"Looking for faces in {name}.")
        found = self._reconstructor(image)
        if not found:
            raise NoFaceError(f"No face was found in {name}.")
        first = len(self.faces)
        for number, face in enumerate(found, start=1):
            self.faces.append(face)
            self._names.append(name if len(found) == 1 else f"{name}, face {number}")
        spare = max(len(self.faces) - MAX_FACES, 0)
        for kept in (self.faces, self._names):
            del kept[:spare]
        self._list_faces()
        self.chooser.value = max(first - spare, 0)

    def show(self, number: int) -> None:
        """Show one of `faces`, its stages and its mesh."""
        self.face = self.faces[number]
        self._make_sliders(self.face)
        self.stages.value = _gallery(figures.stages(self.face))
        self.second.value, self.distance = None, None
        self.vertices = self.face.vertices
        self.yaw.value = self.pitch.value = 0
        self._draw_mesh()
        self.reset()
        pose, sure = self.face.pose, self.face.confidence
        self._say(
            f"{self._names[number]}: yaw {pose.yaw:.0f}, pitch {pose.pitch:.0f}, roll "
            f"{pose.roll:.0f} degrees; confidence {sure:.2f}."
        )

    def reset(self) -> None:
        """The coefficients as they were fitted."""
        face = self._shown()
        self._set(face.shape, face.expression)

    def set_mean(self) -> None:
        """The mean face without expression."""
        face = self._shown()
        self._set(np.zeros_like(face.shape), np.zeros_like(face.expression))

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Shape (Ks,) and expression (Ke,) as the sliders have them; other modes as last set."""
        model = self._shown().model
        shape, expression = self._base[0].copy(), self._base[1].copy()
        for mode, slider in enumerate(self.shape):
            shape[mode] = slider.value * model.shape_sigma[mode]
        for slider in self.expression:
            expression[model.expression_names.index(slider.description)] = slider.value
        return shape, expression

    def compare(self, number: int) -> np.ndarray:
        """Colour the mesh by its distance from that of another of `faces`.

        Returns
        -------
        (V,) mm between the vertices of both in model space.
        """
        distance = np.linalg.norm(self.faces[number].vertices - self.vertices, axis=1)
        self.distance = distance
        self._draw_mesh()
        self._say(
            f"From {self._names[number]}: {distance.mean():.1f} mm on average, "
            f"{distance.max():.1f} mm at most, head pose apart."
        )
        return distance

    def share_shapes(self, numbers: tuple[int, ...]) -> None:
        """Fit one shape to several of `faces` (Eq. 5); they take it on.

        Raises
        ------
        P2FError
            Fewer than two faces.
        """
        if len(numbers) < 2 or self._reconstructor is None:
            raise P2FError("Choose two photos of one person or more.")
        before = [self.faces[n] for n in numbers]
        after = share_shape(before, self._reconstructor.fitter)
        for number, face in zip(numbers, after, strict=True):
            self.faces[number] = face
        self.show(numbers[0])
        self.chooser.value = numbers[0]
        neutral = [neutral_mesh([face]).vertices for face in (before[0], after[0])]
        moved = np.linalg.norm(neutral[1] - neutral[0], axis=1)
        self._say(
            f"One shape for {len(numbers)} photos: the neutral mesh of the first moved by "
            f"{moved.mean():.1f} mm on average."
        )

    def export_file(self, suffix: str) -> tuple[str, bytes]:
        """Name and content of the mesh as the sliders have it, or of the network's points (ply).

        An .obj comes with material and texture, in a .zip.
        """
        shape, expression = self.coefficients()
        face = replace(self._shown(), shape=shape, expression=expression, vertices=self.vertices)
        with TemporaryDirectory() as folder:  # gone before this returns
            path = Path(folder, f"face.{suffix}")
            face.save(path)
            if suffix != "obj":
                return path.name, path.read_bytes()
            buffer = BytesIO()
            with ZipFile(buffer, "w") as archive:
                for part in sorted(Path(folder).iterdir()):
                    archive.write(part, part.name)
            return "face.zip", buffer.getvalue()

    # --- widgets ----------------------------------------------------------------------------------

    def _lay_out(self) -> widgets.VBox:
        row = widgets.HBox
        left = widgets.VBox([self.view, self.plot, self.markup, self.detail])
        right = widgets.VBox(
            [
                self.chooser,
                row([self.yaw, self.pitch]),
                self.sliders,
                row([self.fitted, self.mean]),
                self.second,
                row([self.several, self.share]),
                row([self.format, self.export]),
                self.link,
            ]
        )
        opening = row([self.bundled, self.upload, self.path])
        parts = row([left, right], layout={"flex_flow": "row wrap"})  # in narrow windows
        return widgets.VBox([opening, row([self.progress, self.status]), self.stages, parts])

    def _connect(self) -> None:
        guarded = self._guarded
        self.bundled.observe(guarded(self._open_bundled), "value")
        self.upload.observe(guarded(self._open_uploads), "value")
        self.path.observe(guarded(self._open_path), "value")
        self.chooser.observe(guarded(lambda change: self._choose(change["new"])), "value")
        self.view.observe(guarded(lambda change: self._draw_mesh()), "value")
        self.markup.observe(guarded(lambda change: self._draw_landmarks()), "value")
        self.second.observe(guarded(self._compare_with), "value")
        for slider in (self.yaw, self.pitch):
            slider.observe(guarded(lambda change: self._turn()), "value")
        self.fitted.on_click(guarded(lambda button: self.reset()))
        self.mean.on_click(guarded(lambda button: self.set_mean()))
        self.share.on_click(guarded(lambda button: self.share_shapes(self.several.value)))
        self.export.on_click(guarded(lambda button: self._offer()))

    def _guarded(self, work: Callable[..., None]) -> Callable[..., None]:
        """`work`, whose errors become a sentence on the page."""

        def guarded(*arguments: object) -> None:
            try:
                work(*arguments)
            except P2FError as error:
                self._say(str(error), trouble=True)
            finally:
                self.progress.layout.display = "none"

        return guarded

    def _say(self, sentence: str, trouble: bool = False) -> None:
        color = "#b00020" if trouble else "inherit"
        self.status.value = f'<span style="color:{color}">{html.escape(sentence)}</span>'

    def _shown(self) -> Face:
        if self.face is None:
            raise P2FError("Choose a photo first.")
        return self.face

    def _open_bundled(self, change: dict) -> None:
        if change["new"]:
            self._open_all([(change["new"], lambda: bundled_picture(change["new"]))])

    def _open_path(self, change: dict) -> None:
        if change["new"]:
            path = Path(change["new"]).expanduser()
            self._open_all([(path.name, lambda: read_image(path))])

    def _open_uploads(self, change: dict) -> None:
        files = [(item["name"], bytes(item["content"])) for item in change["new"]]
        if not files:
            return
        self.upload.value = ()  # the page keeps no second copy
        self._open_all([(name, partial(_decoded, data, name)) for name, data in files])

    def _open_all(self, photos: list[tuple[str, Callable[[], np.ndarray]]]) -> None:
        """Open photos one by one; one's trouble never stops the others."""
        troubles = []
        self.progress.layout.display = "flex"
        self.progress.max, self.progress.value = len(photos), 0
        for name, load in photos:
            try:
                self.open(load(), name)
            except P2FError as error:
                troubles.append(str(error))
            self.progress.value += 1
        if troubles:
            raise P2FError(" ".join(troubles))

    def _list_faces(self) -> None:
        options = [(name, number) for number, name in enumerate(self._names)]
        self.chooser.unobserve_all("value")
        self.chooser.options, self.chooser.value = options, None
        self.chooser.observe(self._guarded(lambda change: self._choose(change["new"])), "value")
        self.several.options = options
        self.second.options = [("", None), *options]

    def _choose(self, number: int | None) -> None:
        if number is not None:
            self.show(number)

    def _compare_with(self, change: dict) -> None:
        if change["new"] is not None:
            self.compare(change["new"])
        else:
            self.distance = None
            self._draw_mesh()

    def _make_sliders(self, face: Face) -> None:
        """Sliders of a face model's first modes and best-known expressions, unless they exist."""
        names = [name for name in EXPRESSION_SLIDERS if name in face.model.expression_names]
        if [slider.description for slider in self.expression] == names and self.shape:
            return
        count = min(SHAPE_SLIDERS, face.model.n_shape)
        self.shape = [_slider(f"shape {mode + 1}", 0, 3, 0.05) for mode in range(count)]
        self.expression = [_slider(name, 0, 1, 0.02, low=-0.3) for name in names]
        for slider in (*self.shape, *self.expression):
            slider.observe(self._guarded(lambda change: self._moved()), "value")
        self.sliders.children = [widgets.VBox(self.shape), widgets.VBox(self.expression)]

    def _set(self, shape: np.ndarray, expression: np.ndarray) -> None:
        self._base = np.asarray(shape, float), np.asarray(expression, float)
        self._busy = True  # one change of the mesh, not one a slider
        model = self._shown().model
        for mode, slider in enumerate(self.shape):
            _place(slider, shape[mode] / model.shape_sigma[mode])
        for slider in self.expression:
            _place(slider, expression[model.expression_names.index(slider.description)])
        self._busy = False
        self._move(model.vertices(shape, expression))

    def _moved(self) -> None:
        if not self._busy and self.face is not None:
            self._move(self.face.model.vertices(*self.coefficients()))

    # --- the scene --------------------------------------------------------------------------------

    def _trace(self, name: str) -> graph_objects.Scatter3d | graph_objects.Mesh3d:
        return next(trace for trace in self.figure.data if trace.name == name)

    def _draw_mesh(self) -> None:
        """A figure of its own for every face and kind of view: a page that opens later asks for
        what a figure was made with, not for what became of it."""
        if self.face is None:
            return
        face, points = self.face, self.view.value == "points"
        i, j, k = np.ascontiguousarray(face.triangles.T)
        light = {"ambient": 0.75, "diffuse": 0.35, "specular": 0.05, "roughness": 0.9}
        mesh = graph_objects.Mesh3d(name="mesh", i=i, j=j, k=k, lighting=light, hoverinfo="skip")
        mesh.update(figures.plotly_axes(self.vertices))
        if self.distance is None:
            mesh.vertexcolor = figures.plotly_colors(face.mesh.vertex_colors())
        else:
            mesh.update(intensity=self.distance, cmin=0, cmax=FARTHEST, colorscale="Viridis")
            mesh.colorbar = {"title": "mm", "len": 0.6}
        inside = graph_objects.Mesh3d(
            name="inside", color=to_hex(figures.INSIDE_COLOR), hoverinfo="skip"
        )
        self._holes = boundary_loops(face.triangles)[1:]  # but for the outline
        closing, triangles = _closing(self.vertices, self._holes)
        inside.update(figures.plotly_axes(closing))
        inside.i, inside.j, inside.k = np.ascontiguousarray(triangles.T)
        mesh.visible = inside.visible = not points
        cloud = graph_objects.Scatter3d(name="points", visible=points)
        cloud.update(figures.plotly_axes(face.points))
        cloud.update(mode="markers", hoverinfo="skip")
        cloud.marker = {"size": 2, "color": figures.plotly_colors(face.point_colors)}
        marks = graph_objects.Scatter3d(name="landmarks", mode="markers", visible=False)
        marks.marker = {"size": 5, "color": figures.LANDMARK_COLOR}
        marks.hovertemplate = "%{pointNumber}<extra></extra>"
        layout = figures.plotly_scene(520, 480, (0.0, -EYE, 0.0)) | {"showlegend": False}
        layout["scene"] |= _steady_axes(face.vertices)
        self.figure = graph_objects.FigureWidget([mesh, inside, cloud, marks], layout)
        # Twice the pixels a side, Plotly's default, are too many without a graphics card.
        self.figure._config = {**self.figure._config, "plotGlPixelRatio": 1, "displaylogo": False}
        self.plot.children = [self.figure]
        self._turn()
        self._trace("landmarks").on_click(self._guarded(self._tell_landmark))
        self._draw_landmarks()

    def _move(self, vertices: np.ndarray) -> None:
        self.vertices = vertices
        with self.figure.batch_update():
            self._trace("mesh").update(figures.plotly_axes(vertices))
            closing, _ = _closing(vertices, self._holes)
            self._trace("inside").update(figures.plotly_axes(closing))
        self._draw_landmarks()

    def _draw_landmarks(self) -> None:
        if self.face is None or not len(self.vertices):
            return
        chosen = self.face.model.landmarks.get(self.markup.value, np.zeros(0, int))
        raised = self.vertices[chosen]
        if len(chosen):  # off the mesh, which would hide them from the mouse
            raised = raised + RAISED * vertex_normals(self.vertices, self.face.triangles)[chosen]
        marks = figures.plotly_axes(raised) | {"visible": len(chosen) > 0}
        with self.figure.batch_update():
            self._trace("landmarks").update(marks)

    def _tell_landmark(self, trace: object, points: Any, state: object) -> None:
        if self.face is None or not points.point_inds:
            return
        number, markup = points.point_inds[0], self.markup.value
        vertex = int(self.face.model.landmarks[markup][number])
        point = self.vertices[vertex]
        u, v = self.face.project(point[None])[0]
        seen = "seen" if self.face.landmarks_visible(markup)[number] else "hidden"
        self.detail.value = (
            f"{markup} landmark {number}: vertex {vertex}, "
            f"({point[0]:.1f}, {point[1]:.1f}, {point[2]:.1f}) mm, pixel ({u:.1f}, {v:.1f}), "
            f"{seen} in the photo."
        )

    def _turn(self) -> None:
        yaw, pitch = np.radians((self.yaw.value, self.pitch.value))
        across, up = -np.sin(yaw) * np.cos(pitch), -np.sin(pitch)
        eye = EYE * np.array([across, -np.cos(yaw) * np.cos(pitch), up])
        if self.face is not None:
            self.figure.layout.scene.camera.eye = dict(zip("xyz", eye.tolist(), strict=True))

    def _offer(self) -> None:
        name, content = self.export_file(self.format.value)
        data = b64encode(content).decode()
        self.link.value = (
            f'<a download="{name}" href="data:application/octet-stream;base64,{data}">'
            f"Save {name}</a> ({len(content) / 1024:.0f} KB)"
        )


def _decoded(data: bytes, name: str) -> np.ndarray:
    if len(data) > MAX_UPLOAD:
        raise P2FError(
            f"{name} has {len(data) / 2**20:.0f} MB, more than the {MAX_UPLOAD >> 20} allowed; "
            "shrink it first."
        )
    return decode_image(data, name)


def _slider(
    name: str, value: float, reach: float, step: float, low: float | None = None
) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value,
        min=-reach if low is None else low,
        max=reach,
        step=step,
        description=name,
        readout_format=".2f",
        style={"description_width": "120px"},
        layout={"width": "300px", "flex": "0 0 auto"},
    )


def _place(slider: widgets.FloatSlider, value: float) -> None:
    slider.min, slider.max = min(slider.min, value), max(slider.max, value)
    slider.value = value


def _steady_axes(vertices: np.ndarray) -> dict:
    """Axes about a mesh that stay as they are when it moves: else each move draws them anew."""
    axes = figures.plotly_axes(vertices)
    reach = 0.6 * max(np.ptp(values) for values in axes.values())
    middles = {axis: (values.min() + values.max()) / 2 for axis, values in axes.items()}
    ranges = {axis: [float(m - reach), float(m + reach)] for axis, m in middles.items()}
    fixed = {f"{axis}axis": {"visible": False, "range": span} for axis, span in ranges.items()}
    return fixed | {"aspectmode": "cube"}


def _closing(vertices: np.ndarray, holes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points (M, 3) and triangles (F, 3) of a mesh that closes the holes of another, the mouth."""
    rim = np.concatenate([np.zeros(0, int), *holes])
    ends = np.cumsum([len(hole) for hole in holes])
    hubs, triangles = figures.caps(vertices[rim], np.split(np.arange(len(rim)), ends)[:-1])
    return np.concatenate([vertices[rim], hubs]), triangles


def _gallery(pictures: list[tuple[str, np.ndarray]]) -> str:
    """Titled uint8 pictures side by side, as HTML that needs no file."""
    parts = []
    for title, picture in pictures:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=85)
        data = b64encode(buffer.getvalue()).decode()
        parts.append(
            f'<figure style="display:inline-block;width:15.5%;min-width:100px;max-width:175px;'
            f'margin:3px;text-align:center"><img src="data:image/jpeg;base64,{data}" '
            f'style="width:100%" alt="{html.escape(title)}">'
            f'<figcaption style="font-size:12px">{html.escape(title)}</figcaption></figure>'
        )
    return "".join(parts)
