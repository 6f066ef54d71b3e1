"""What hides a face: glasses, hands, things. Drawn over the picture."""

from __future__ import annotations

import cv2
import numpy as np

from p2f_lib.synthesis.anatomy import HeadFrame
from p2f_lib.synthesis.background import random_color
from p2f_lib.synthesis.noise import noise_image
from p2f_lib.synthesis.people import Glasses
from p2f_lib.synthesis.skin import skin_color, to_linear

SHIFT = 4  # fractional bits of cv2's coordinates
RIM_POINTS = 40


def _glasses_curves(glasses: Glasses, frame: HeadFrame):
    """Two rims (N, 3), and the open curves of bridge and temples; mm, model space."""
    marks = frame.marks
    rims, arms = [], []
    angle = np.linspace(0, 2 * np.pi, RIM_POINTS, endpoint=False)
    power = 2 / glasses.squareness
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    ring = np.sign(ring) * np.abs(ring) ** power
    front = max(marks[27, 2] - 3, marks[36:48, 2].max() + 9)
    for first, ear in ((36, 0), (42, 16)):
        eye = marks[first : first + 6]
        wide = np.linalg.norm(eye[0] - eye[3])
        half = wide * np.array(glasses.size) / 2
        side = np.sign(eye[:, 0].mean() - frame.eyes[0])
        center = eye.mean(0)
        # Rims keep off the nose.
        x = np.copysign(max(abs(center[0] - frame.eyes[0]), half[0] + 7), side) + frame.eyes[0]
        rim = np.zeros((RIM_POINTS, 3))
        rim[:, :2] = [x, center[1] - 0.12 * wide] + ring * half
        rim[:, 2] = front - 0.0022 * (rim[:, 0] - frame.eyes[0]) ** 2  # wraps around the face
        rims.append(rim)
        outer = rim[np.argmax(side * rim[:, 0] + 0.6 * rim[:, 1])]
        hook = marks[ear] + [side * 4, 0, 0]
        hook[1] = max(hook[1], frame.eyes[1] - 4)
        arms.append(outer + np.linspace(0, 1, 24)[:, None] * (hook - outer))
    inner = [rim[np.argmax(-np.sign(rim[:, 0].mean() - frame.eyes[0]) * rim[:, 0])] for rim in rims]
    bridge = inner[0] + np.linspace(0, 1, 8)[:, None] * (inner[1] - inner[0])
    bridge[:, 1] += 3 + 3 * np.sin(np.linspace(0, np.pi, 8))
    bridge[:, 2] = np.maximum(bridge[:, 2], front)
    return rims, [bridge, *arms]


def draw_glasses(
    image: np.ndarray, depth: np.ndarray, glasses: Glasses, frame: HeadFrame, camera, scale: float,
    light: np.ndarray,
) -> None:  # fmt: skip
    """Draw glasses over a linear picture, in place, hidden where `depth` (H, W) is nearer.

    Parameters
    ----------
    camera : of the final picture; `image` is `scale` times larger.
    light : (3,) mean light on the face.
    """
    height, width = depth.shape
    rims, open_curves = _glasses_curves(glasses, frame)

    def to_pixels(points):
        return (camera.project(points) + 0.5) * scale - 0.5

    def visible(points, pixels):
        column = np.clip(pixels[:, 0].round().astype(int), 0, width - 1)
        row = np.clip(pixels[:, 1].round().astype(int), 0, height - 1)
        return camera.depth(points) <= depth[row, column] + 4.0

    middle = rims[0].mean(0)
    per_mm = np.linalg.norm(
        to_pixels(middle[None] + [[0, 5.0, 0]]) - to_pixels(middle[None] - [[0, 5.0, 0]])
    ) / 10  # fmt: skip
    thick = max(1, round(glasses.thickness * per_mm))
    frame_mask = np.zeros((height, width), np.uint8)
    lens_mask = np.zeros((height, width), np.uint8)
    for index, curve in enumerate([*rims, *open_curves]):
        closed = index < 2
        pixels = to_pixels(curve)
        seen = visible(curve, pixels)
        if closed and seen.mean() > 0.3:
            fixed = np.round(pixels * 2**SHIFT).astype(np.int32)
            cv2.fillPoly(lens_mask, [fixed], 255, cv2.LINE_AA, SHIFT)
        if closed:
            pixels, seen = np.vstack([pixels, pixels[:1]]), np.append(seen, seen[0])
            if not glasses.lower_rim:
                seen &= np.append(curve[:, 1], curve[0, 1]) > curve[:, 1].mean() - 2
        fixed = np.round(pixels * 2**SHIFT).astype(np.int32)
        for a, b, both in zip(fixed[:-1], fixed[1:], seen[:-1] & seen[1:], strict=True):
            if both:
                cv2.line(frame_mask, a.tolist(), b.tolist(), 255, thick, cv2.LINE_AA, SHIFT)
    box = cv2.boundingRect(cv2.findNonZero(cv2.max(frame_mask, lens_mask)))
    if box[2] == 0:
        return
    part = (slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2]))
    alpha = lens_mask[part][..., None] / np.float32(255)
    if glasses.opacity > 0.02:
        image[part] += alpha * glasses.opacity * (glasses.tint * light - image[part])
    if glasses.glare > 0:
        rows, columns = np.mgrid[part].astype(np.float32)
        bands = np.sin((rows * 0.8 + columns) / (9 * per_mm)) - 0.55
        image[part] += alpha * glasses.glare * np.clip(bands, 0, 1)[..., None] * 2.0 * light
    fade = min(1.0, glasses.thickness * per_mm)
    alpha = frame_mask[part][..., None] / np.float32(255) * fade
    image[part] += alpha * (glasses.color * light - image[part])


def draw_occluder(
    image: np.ndarray, box: np.ndarray, skin: np.ndarray, light: np.ndarray, seed: int
):
    """Something in front of the face: a hand, a phone, a cup, a microphone, any blob; in place.

    Parameters
    ----------
    image : (H, W, 3) linear.
    box : (left, top, right, bottom) of the face, pixels of `image`.
    skin : (3,) reflectance of this person's skin.
    light : (3,) light there.
    seed : which thing and where; the same in each frame.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    center = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    size = max(box[2] - box[0], box[3] - box[1])
    angle = rng.uniform(0, 2 * np.pi)
    spot = center + size * rng.uniform(0.3, 0.62) * np.array([np.cos(angle), np.sin(angle)])
    mask = np.zeros((height, width), np.uint8)
    color = to_linear(random_color(rng, 0.9))
    kind = rng.choice(["hand", "thing", "blob", "bar"], p=[0.45, 0.25, 0.2, 0.1])
    shade = np.ones((height, width, 1), np.float32)
    if kind == "hand":
        color = skin if rng.random() < 0.8 else to_linear(skin_color(rng))
        inward = np.arctan2(*(center - spot)[::-1]) + rng.normal(0, 0.7)
        forward = np.array([np.cos(inward), np.sin(inward)])
        across = np.array([-forward[1], forward[0]])
        thick = size * rng.uniform(0.09, 0.13)
        palm = spot - forward * thick * 2.5
        cv2.ellipse(
            mask, palm.astype(int).tolist(), (int(2.3 * thick), int(2.1 * thick)),
            np.degrees(inward), 0, 360, 255, -1,
        )  # fmt: skip
        wrist = palm - forward * thick * 14
        cv2.line(mask, palm.astype(int).tolist(), wrist.astype(int).tolist(), 255, int(3 * thick))
        relief = np.zeros((height, width), np.float32)
        for finger in range(4):
            root = palm + across * thick * (finger - 1.5) * 1.05 + forward * thick
            bend = rng.normal(0, 0.12) + (finger - 1.5) * rng.uniform(0, 0.15)
            along = forward * np.cos(bend) + across * np.sin(bend)
            tip = root + along * thick * rng.uniform(2.2, 4.2)
            ends = root.astype(int).tolist(), tip.astype(int).tolist()
            cv2.line(mask, *ends, 255, max(1, int(thick)), cv2.LINE_AA)
            cv2.line(relief, *ends, 1.0, max(1, int(thick * 0.55)), cv2.LINE_AA)
        relief = cv2.GaussianBlur(relief, (0, 0), max(thick * 0.25, 0.5))
        soft = cv2.GaussianBlur(mask, (0, 0), max(thick * 0.5, 0.5)) / np.float32(255)
        shade = (0.45 + 0.35 * soft + 0.4 * relief)[..., None]
    elif kind == "thing":
        long = size * rng.uniform(0.25, 0.6)
        corners = cv2.boxPoints((spot.tolist(), (long, long * rng.uniform(0.4, 1)), angle * 57))
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    elif kind == "blob":
        turns = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = size * rng.uniform(0.15, 0.45) * rng.uniform(0.6, 1.2, 12)
        outline = spot + radius[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)
    else:
        tip = spot + size * 2 * np.array([np.cos(angle + 1.2), np.sin(angle + 1.2)])
        base = spot - (tip - spot) * rng.uniform(0, 1)
        cv2.line(
            mask, base.astype(int).tolist(), tip.astype(int).tolist(), 255,
            max(1, int(size * rng.uniform(0.03, 0.2))), cv2.LINE_AA,
        )  # fmt: skip
    if kind != "hand":
        shade = 0.5 + noise_image(rng, height, width, rng.uniform(2, 12), 3)
    if rng.random() < 0.3:  # nearer than the focus
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, 0.02 * size))
    alpha = mask[..., None] / np.float32(255)
    image += alpha * (shade * (color * light).astype(np.float32) - image)
