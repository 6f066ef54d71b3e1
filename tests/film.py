"""A small world for tracking tests: faces are coloured squares, and nobody needs a network.

Everything reads the pictures themselves, so what a video file, a cut or a lost frame does to them
is tested, too.
"""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.crop import Box, Crop
from p2f_lib.detection import Detection
from p2f_lib.fitting import Fitter, Localized
from tests.toy import toy_model

WIDTH, HEIGHT = 160, 120
COLORS = {"red": (250, 20, 20), "blue": (20, 20, 250)}
FOCAL = 500.0


def picture(*people: tuple[str, float, float, float], scene: int = 0) -> np.ndarray:
    """(120, 160, 3): people are (colour, x, y, side), the background belongs to the scene."""
    rng = np.random.default_rng(scene)
    coarse = rng.integers(60, 180, (6, 8), dtype=np.uint8)
    grey = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(grey[..., None], 3, axis=2)
    for color, x, y, side in people:
        low = np.round([x - side / 2, y - side / 2]).astype(int)
        high = low + round(side) - 1
        cv2.rectangle(image, low.tolist(), high.tolist(), COLORS[color], -1)
    return image


def squares(image: np.ndarray) -> dict[str, Box]:
    """Colour -> where it is in a picture."""
    found = {}
    for name, color in COLORS.items():
        near = (np.abs(image.astype(int) - color) < 90).all(axis=2).astype(np.uint8)
        if near.sum() >= 30:
            x, y, width, height = cv2.boundingRect(near)
            found[name] = Box(x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5)
    return found


class Detector:
    """Finds the squares; blind for those of the pictures whose numbers it is told."""

    def __init__(self, *blind: int) -> None:
        self.blind, self.asked = blind, 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.asked += 1
        if self.asked - 1 in self.blind:
            return []
        return [Detection(box, 1.0) for box in squares(image).values()]


class Network:
    """Stands in for a `Reconstructor`: fits a frontal head to the square that a crop shows best."""

    crop_scale = 1.4

    def __init__(self, detector: Detector | None = None) -> None:
        self.model = toy_model(400)
        self.fitter = Fitter(self.model)
        self.unet = SimpleNamespace(config=SimpleNamespace(input_size=32))
        self.detector = detector or Detector()
        self.crops: list[Crop] = []

    def reconstruct_many(self, images, boxes, crops=None):
        crops = crops or [None] * len(images)
        looks = [
            crop or Crop.around(box, 32, self.crop_scale)
            for crop, box in zip(crops, boxes, strict=True)
        ]
        self.crops += looks
        return [self._face(image, look) for image, look in zip(images, looks, strict=True)]

    def next_crop(self, face):
        return Crop.upright(face.landmarks("ibug68"), 32, self.crop_scale, 0.0)

    def _face(self, image, crop):
        seen = squares(crop.extract(image))
        if not seen:
            return None
        middle = np.array([15.5, 15.5])
        box = min(seen.values(), key=lambda box: np.hypot(*(box.center - middle)))
        corners = crop.points_to_picture(np.array([box.as_tuple()]).reshape(2, 2))
        (left, top), (right, bottom) = corners
        side = max(right - left, bottom - top)
        marks = self.model.mean[self.model.landmarks["ibug68"]]
        depth = FOCAL * np.ptp(marks[:, 1]) / side
        center = np.array([WIDTH - 1, HEIGHT - 1]) / 2
        x, y = (np.array([left + right, top + bottom]) / 2 - center) * depth / FOCAL
        rotation = rotation_from_pose(Pose(0, 0, 0))
        head = rotation @ ((marks.max(axis=0) + marks.min(axis=0)) / 2)
        shift = np.array([x, y, depth]) - head * (1, 1, 0)
        camera = PerspectiveCamera(FOCAL, center, rotation, shift)
        shape = np.full(self.model.n_shape, 0.1) + 0.001 * left
        expression = np.full(self.model.n_expression, 0.02)
        vertices = self.model.vertices(shape, expression)
        chosen = np.arange(0, 400, 3)
        return SimpleNamespace(
            crop=crop,
            camera=camera,
            pose=camera.pose,
            shape=shape,
            expression=expression,
            vertices=vertices,
            localized=Localized(
                chosen,
                crop.points_from_picture(camera.project(vertices[chosen])),
                (vertices - self.model.mean)[chosen],
            ),
            confidence=0.9,
            landmarks=lambda markup: camera.project(vertices[self.model.landmarks[markup]]),
        )
