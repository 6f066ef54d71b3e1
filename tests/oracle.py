"""A network that can't err: it reads from the picture where it looks and renders the truth there.

`Scene.photo` codes pixel positions as colours, so a crop of it tells its own place to a small
fraction of a pixel, and the oracle stays honest about crops: were one cut wrongly, its planes would
be of the wrong place too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import cv2
import numpy as np

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.crop import Box
from p2f_lib.detection import Detection
from p2f_lib.ground_truth import render_ground_truth
from p2f_lib.morphable_model import MorphableModel

SIZE = 96


@dataclass(frozen=True, eq=False)
class Person:
    """One face of a scene, known to the last coefficient."""

    model: MorphableModel
    shape: np.ndarray
    expression: np.ndarray
    camera: PerspectiveCamera

    @property
    def vertices(self) -> np.ndarray:
        return self.model.vertices(self.shape, self.expression)

    def landmarks(self, markup: str = "ibug68") -> np.ndarray:
        return self.camera.project(self.vertices[self.model.landmarks[markup]])

    @property
    def box(self) -> Box:
        return Box.around(self.landmarks())


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture with people in it."""

    width: int
    height: int
    people: tuple[Person, ...]
    crops_seen: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, model, seed=0, faces=((0.5, 0.5, 0.0),), width=480, height=360) -> Scene:
        """`faces` are (x, y, yaw): where in the picture, as shares of it, and how turned."""
        rng = np.random.default_rng(seed)
        center = np.array([width - 1, height - 1]) / 2
        people = []
        for x, y, yaw in faces:
            focal, distance = 1.5 * width, 900.0
            shift = (np.array([x * width, y * height]) - 0.5 - center) * distance / focal
            people.append(
                Person(
                    model,
                    rng.normal(0, 0.7, model.n_shape).astype(np.float32),
                    rng.uniform(0, 0.5, model.n_expression).astype(np.float32),
                    PerspectiveCamera(
                        focal,
                        center,
                        rotation_from_pose(Pose(yaw, 5.0, -4.0)),
                        np.array([*shift, distance]),
                    ),
                )
            )
        return cls(width, height, tuple(people))

    @property
    def photo(self) -> np.ndarray:
        """(H, W, 3) uint8: red counts columns, green counts rows, blue is 255."""
        y, x = np.mgrid[: self.height, : self.width]
        red, green = x * 255 / (self.width - 1), y * 255 / (self.height - 1)
        return np.stack([red, green, np.full_like(red, 255)], -1).round().astype(np.uint8)

    def place(self, crop: np.ndarray) -> np.ndarray:
        """(2, 3) similarity from the crop's pixels to the photo's, read off its colours."""
        v, u = np.nonzero(crop[..., 2] == 255)
        seen = crop[v, u, :2] * (np.array([self.width, self.height]) - 1) / 255
        columns = np.column_stack([u, v, np.ones(len(u))])
        (a, c), (b, d), shift = np.linalg.lstsq(columns, seen, rcond=None)[0]
        along, across = (a + d) / 2, (c - b) / 2
        return np.array([[along, -across, shift[0]], [across, along, shift[1]]])

    def predict(
        self, unet, images: np.ndarray, mirror: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stands in for `p2f_lib.unet.predict`: true planes of the face nearest to each crop."""
        assert images.dtype == np.uint8
        assert images.shape[1:] == (unet.config.input_size, unet.config.input_size, 3)
        size = images.shape[1]
        planes = np.zeros((2, len(images), size, size, 3), np.float32)
        for i, crop in enumerate(images):
            place = self.place(crop)
            self.crops_seen.append(np.sqrt(np.linalg.det(place[:, :2])) * size)
            middle = place @ [(size - 1) / 2, (size - 1) / 2, 1]
            if not self.people:
                continue
            person = min(self.people, key=lambda p: np.hypot(*(p.box.center - middle)))
            camera = person.camera.transformed(cv2.invertAffineTransform(place))
            truth = render_ground_truth(
                person.model, person.shape, person.expression, camera, size, size
            )
            planes[:, i] = truth.pncc, truth.offsets
        return planes[0], planes[1]

    def detector(self, image: np.ndarray) -> list[Detection]:
        """A detector with a rough idea of boxes, surest of the last person."""
        found = []
        for rank, person in enumerate(self.people):
            (x, y), side = person.box.center, max(person.box.width, person.box.height)
            box = Box(x - 0.56 * side, y - 0.5 * side, x + 0.44 * side, y + 0.5 * side)
            found.append(Detection(box, 1.0 + rank))
        return found[::-1]


STUB_UNET = SimpleNamespace(config=SimpleNamespace(input_size=SIZE), metadata={})
