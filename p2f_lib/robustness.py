"""How far a network can be trusted: faces told from things, and changed copies of a picture.

Both experiments use pictures that scikit-image and Matplotlib bundle, so anybody can repeat them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import skimage.data
from matplotlib.cbook import get_sample_data
from scipy.stats import rankdata
from skimage.io import imread

from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import interocular_distance
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.reconstruction import Face, Reconstructor

PORTRAITS = {  # name -> about the box of the 68 landmarks, pixels
    "astronaut": Box(176.0, 87.0, 275.0, 177.0),
    "grace_hopper": Box(168.0, 156.0, 360.0, 330.0),
}
HEADS = {  # parts of pictures that no faceless view may touch, pixels
    "astronaut": Box(130.0, 0.0, 320.0, 210.0),
    "camera": Box(170.0, 50.0, 290.0, 180.0),
    "grace_hopper": Box(110.0, 20.0, 400.0, 360.0),
}
# Pictures without a face but a cat's. The training knows most of them as backgrounds.
FACELESS = (
    "camera",
    "chelsea",
    "coffee",
    "grace_hopper",
    "grass",
    "hubble_deep_field",
    "moon",
    "retina",
    "rocket",
    "text",
)
NEVER_SEEN = ("camera", "chelsea", "grace_hopper")  # these it doesn't know
SMALLEST_SIDE = 48  # pixels of a faceless box
LARGEST_SHARE = 0.9  # of the picture's shorter side


def bundled_picture(name: str) -> np.ndarray:
    """(H, W, 3) uint8: ``grace_hopper`` of Matplotlib or a picture of scikit-image's wheel."""
    if name == "grace_hopper":
        return imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
    picture = getattr(skimage.data, name)()
    picture = picture[0] if isinstance(picture, tuple) else picture
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


def portraits() -> list[tuple[np.ndarray, Box]]:
    """The two bundled portraits, both in the public domain, with their boxes."""
    return [(bundled_picture(name), box) for name, box in PORTRAITS.items()]


# ---------------------------------------------------------------- confidence


def face_auc(faces: np.ndarray, others: np.ndarray) -> float:
    """Area under the ROC curve: how often a face has the higher confidence than something else.

    Parameters
    ----------
    faces, others : (N,), (M,) confidences; equal ones count half.

    Raises
    ------
    P2FError
        One of the two is empty or not finite.
    """
    faces, others = np.asarray(faces, float).ravel(), np.asarray(others, float).ravel()
    both = np.concatenate([faces, others])
    if not (len(faces) and len(others) and np.isfinite(both).all()):
        raise P2FError(
            f"An AUC needs finite confidences of faces and of other things, got {len(faces)} and "
            f"{len(others)}, of which {np.isfinite(both).sum()} are finite."
        )
    ranks = rankdata(both)[: len(faces)]
    return float((ranks.sum() - len(faces) * (len(faces) + 1) / 2) / (len(faces) * len(others)))


def faceless_views(
    seed: int, count: int, names: Sequence[str] = FACELESS
) -> list[tuple[np.ndarray, Box]]:
    """Pictures with random square boxes that hold no face, the pictures in turn."""
    rng = np.random.default_rng(seed)
    pictures = {name: bundled_picture(name) for name in names}
    views: list[tuple[np.ndarray, Box]] = []
    while len(views) < count:
        name = names[len(views) % len(names)]
        picture = pictures[name]
        height, width = picture.shape[:2]
        span = np.log([SMALLEST_SIDE, LARGEST_SHARE * min(height, width)])
        side = np.exp(rng.uniform(*span))
        left, top = rng.uniform(0, [width - side, height - side])
        box = Box(left, top, left + side, top + side)
        if name not in HEADS or not box.overlap(HEADS[name]):
            views.append((picture, box))
    return views


def jittered_boxes(seed: int, landmarks: np.ndarray) -> list[Box]:
    """Boxes about (N, L, 2) landmarks, some 10 % misplaced and of other sizes, as a detector's."""
    rng = np.random.default_rng(seed)
    boxes = []
    for points in landmarks.astype(float):
        box = Box.around(points)
        shift = rng.uniform(-0.08, 0.08, 2) * max(box.width, box.height)
        half = np.exp(rng.uniform(-0.15, 0.15)) / 2 * np.array([box.width, box.height])
        (left, top), (right, bottom) = box.center + shift - half, box.center + shift + half
        boxes.append(Box(left, top, right, bottom))
    return boxes


def confidences(
    reconstructor: Reconstructor,
    samples: SampleBatch,
    views: Sequence[tuple[np.ndarray, Box]],
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Of synthetic people (N,) and of views without a face (M,), for `face_auc`.

    A box in which the network sees nothing has confidence 0.

    Parameters
    ----------
    samples : of which those with a face are looked at, in boxes that `seed` misplaces a little.
    views : from `faceless_views`.
    """
    rows = np.flatnonzero(samples.is_face)
    boxes = jittered_boxes(seed, samples.landmarks[rows])
    faces = _confidences(reconstructor, [samples.images[row] for row in rows], boxes)
    return faces, _confidences(reconstructor, [v[0] for v in views], [v[1] for v in views])


def _confidences(
    reconstructor: Reconstructor, images: Sequence[np.ndarray], boxes: Sequence[Box]
) -> np.ndarray:
    faces = reconstructor.reconstruct_many(images, boxes)
    return np.array([0.0 if face is None else face.confidence for face in faces])


# ---------------------------------------------------------------- equivariance


def changed_copies(image: np.ndarray, box: Box) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What a copy is called, (H', W', 3) uint8, and the (2, 3) map from the picture's pixels to it.

    Parameters
    ----------
    image : (H, W, 3) uint8
    box : of the face
    """
    same = np.eye(2, 3)
    for degrees in (-30, -15, 15, 30):
        turn = cv2.getRotationMatrix2D(box.center, -degrees, 1.0)
        yield (
            f"turned by {degrees:+d} degrees",
            cv2.warpAffine(image, turn, image.shape[1::-1], flags=cv2.INTER_CUBIC),
            turn,
        )
    for scale, how in ((0.5, cv2.INTER_AREA), (2.0, cv2.INTER_CUBIC)):
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        x, y = np.divide(resized.shape[1::-1], image.shape[1::-1])
        change = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
        yield f"{scale:g} times the size", resized, change
    sigma = 0.02 * np.sqrt(box.width * box.height)
    yield "blurred, sigma 2 % of the box", cv2.GaussianBlur(image, (0, 0), sigma), same
    yield "0.4 times as bright", (0.4 * image.astype(float)).astype(np.uint8), same
    yield "gamma 2", (255 * (image / 255) ** 2).astype(np.uint8), same
    x, y = box.center
    for down, top, bottom in (("upper", box.top, y), ("lower", y, box.bottom)):
        for across, left, right in (("left", box.left, x), ("right", x, box.right)):
            covered = image.copy()
            covered[round(top) : round(bottom), round(left) : round(right)] = 128
            yield f"{down} {across} quarter covered", covered, same


def equivariance(
    reconstructor: Reconstructor, pictures: Sequence[tuple[np.ndarray, Box]]
) -> dict[str, float]:
    """How far the 68 landmarks move when the picture changes, after undoing the change.

    Parameters
    ----------
    pictures : each with the box of its face; the box goes along with every change.

    Returns
    -------
    {change: mean move over landmarks and pictures, over the distance of the outer eye corners};
    inf where the network sees no face in a picture or in its copy.
    """
    moves: dict[str, list[float]] = {}
    for image, box in pictures:
        (original,) = reconstructor.reconstruct_many([image], [box])
        for name, copy, change in changed_copies(image, box):
            (face,) = reconstructor.reconstruct_many([copy], [_moved(box, change)])
            moves.setdefault(name, []).append(_move(original, face, change))
    return {name: float(np.mean(values)) for name, values in moves.items()}


def _move(original: Face | None, face: Face | None, change: np.ndarray) -> float:
    if original is None or face is None:
        return np.inf
    before, back = original.landmarks("ibug68"), cv2.invertAffineTransform(change)
    after = face.landmarks("ibug68") @ back[:, :2].T + back[:, 2]
    return np.linalg.norm(after - before, axis=1).mean() / interocular_distance(before)


def _moved(box: Box, change: np.ndarray) -> Box:
    """The box about the changed place of its centre, of the changed size, never turned."""
    x, y = change[:, :2] @ box.center + change[:, 2]
    scale = np.sqrt(np.linalg.det(change[:, :2])) / 2
    width, height = scale * box.width, scale * box.height
    return Box(x - width, y - height, x + width, y + height)
