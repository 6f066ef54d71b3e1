"""From PNCC and offsets to camera, coefficients, posed mesh and landmarks, on one core."""

import tracemalloc
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from benchmarks import Row, median_ms
from benchmarks._common import BUILD
from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.fitting import Fitter, correspondences, fit_face, valid_mask
from p2f_lib.fitting_torch import BatchFitter
from p2f_lib.ground_truth import render_ground_truth
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import FACE_MODEL_FILE
from tests.toy import egg, toy_model

N_SHAPE, N_EXPRESSION = 60, 51  # as in the open face model


def rows() -> list[Row]:
    """Milliseconds a face, beside the same steps put together from SciPy's parts."""
    small, large = _models()
    return [
        _row("fit_12k_64_ms", small, 64),
        _row("fit_12k_ms", small, 256),
        _row("fit_47k_ms", large, 256),
        _joint_row("fit_1000_photos_s", small),
        _batch_row("fit_12k_batch_ms", small, "cpu"),
        *([_batch_row("fit_12k_gpu_ms", small, "cuda")] if torch.cuda.is_available() else []),
    ]


def _models() -> tuple[MorphableModel, MorphableModel]:
    """The open face model at both resolutions where `make repro` has built it, else eggs."""
    path = BUILD / FACE_MODEL_FILE
    if path.is_file():
        return MorphableModel.load(path, 1), MorphableModel.load(path, 2)
    return _model(11_843), _model(46_588)


def _model(n_vertices: int) -> MorphableModel:
    """An egg with as many modes as a real face model has."""
    rng = np.random.default_rng(0)
    toy = toy_model(400)
    vertices, triangles = egg(n_vertices)
    waves, phases = rng.normal(0, 1 / 50, (111, 3, 3)), rng.uniform(0, 6, (111, 1, 3))
    modes = np.sin(np.einsum("vi,kij->kvj", vertices, waves) + phases).astype(np.float32)
    chosen = cKDTree(vertices).query(toy.mean[toy.landmarks["ibug68"]])[1].astype(np.int32)
    return replace(
        toy,
        mean=vertices.astype(np.float32),
        triangles=triangles,
        shape_basis=modes[:N_SHAPE],
        shape_sigma=np.ones(N_SHAPE, np.float32),
        expression_basis=modes[N_SHAPE:],
        expression_sigma=np.full(N_EXPRESSION, 0.25, np.float32),
        expression_names=tuple(f"e{k}" for k in range(N_EXPRESSION)),
        landmarks={"ibug68": chosen},
        regions={},
    )


def _row(name: str, model: MorphableModel, size: int) -> Row:
    center = np.full(2, (size - 1) / 2)
    pncc, offsets, valid = _planes(model, size)
    fitter, chosen = Fitter(model), model.landmarks["ibug68"]

    def ours() -> np.ndarray:
        fit = fit_face(fitter, pncc, offsets, valid_mask(pncc), center)
        return fit.camera.project(fit.vertices[chosen])

    def plain() -> np.ndarray:
        return _plain(model, pncc, offsets, center)[chosen]

    repeats = 31
    return Row(
        name,
        median_ms(ours, repeats),
        "ms",
        median_ms(plain, 3),
        f"planes to camera, {model.n_shape} + {model.n_expression} coefficients, "
        f"{model.n_vertices} posed vertices, 68 landmarks; {valid.sum()} face pixels of "
        f"{size}x{size}; reference: SciPy's KD-tree, dense least squares, Levenberg-Marquardt",
    )


def _planes(
    model: MorphableModel, size: int, yaw: float = 20.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PNCC, offsets and their mask of a random face that fills the picture, with 1 mm of noise."""
    rng = np.random.default_rng(1)
    center = np.full(2, (size - 1) / 2)
    rotation = rotation_from_pose(Pose(yaw, 5, 5))
    camera = PerspectiveCamera(900 * size / 300, center, rotation, np.array([0, 0, 900.0]))
    shape, expression = rng.normal(size=model.n_shape), rng.normal(0, 0.25, model.n_expression)
    truth = render_ground_truth(model, shape, expression, camera, size, size)
    noise = rng.normal(0, 1, (2, size, size, 3)) * truth.valid[..., None]
    planes = [
        (plane + n).astype(np.float32)
        for plane, n in zip((truth.pncc, truth.offsets), noise, strict=True)
    ]
    return *planes, truth.valid


def _joint_row(name: str, model: MorphableModel) -> Row:
    fitter = Fitter(model)
    seen = [fitter.localize(*_planes(model, 256, yaw)) for yaw in np.linspace(-60, 60, 10)]

    def joint() -> np.ndarray:
        return fitter.coefficients_multi(seen[i % len(seen)] for i in range(1000))[0]

    tracemalloc.start()
    joint()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Row(
        name,
        median_ms(joint, 3) / 1000,
        "s",
        note=f"one shape and 1000 expressions from 1000 photos with localised vertices (Eq. 5), "
        f"{model.n_shape} + {model.n_expression} coefficients; {peak / 1e6:.0f} MB at most",
    )


def _batch_row(name: str, model: MorphableModel, device: str) -> Row:
    """Many faces whose planes are on the device already, and stay there."""
    size, count = 256, 16
    seen = [_planes(model, size, yaw)[:2] for yaw in np.linspace(-60, 60, count)]
    pncc, offsets = (
        torch.from_numpy(np.stack(planes)).to(device) for planes in zip(*seen, strict=True)
    )
    fitter, center = BatchFitter(model, device), torch.full((2,), (size - 1) / 2, device=device)
    chosen = torch.from_numpy(model.landmarks["ibug68"]).long().to(device)

    def batch() -> None:
        fitter(pncc, offsets, center).landmarks(chosen)
        if device == "cuda":
            torch.cuda.synchronize()

    one, middle = Fitter(model), np.full(2, (size - 1) / 2)

    def singly() -> None:
        for pncc_one, offsets_one in seen:
            fit = fit_face(one, pncc_one, offsets_one, valid_mask(pncc_one), middle)
            fit.camera.project(fit.vertices[model.landmarks["ibug68"]])

    place = "1 core" if device == "cpu" else torch.cuda.get_device_name()
    return Row(
        name,
        median_ms(batch, 5) / count,
        "ms",
        median_ms(singly, 5) / count,
        f"a face of a batch of {count} in PyTorch, {size}x{size}, {model.n_vertices} posed "
        f"vertices, {place}; reference: one after the other on one core",
    )


def _plain(
    model: MorphableModel, pncc: np.ndarray, offsets: np.ndarray, center: np.ndarray
) -> np.ndarray:
    """The same steps as one would first write them; (V, 2) pixels of the posed mesh."""
    valid = valid_mask(pncc)
    both = correspondences(pncc, offsets, valid)
    gap, pixel = cKDTree(pncc[valid]).query(model.mean)
    vertices = np.flatnonzero(gap < 4.0)
    basis = np.concatenate([model.shape_basis, model.expression_basis])
    sigma = np.concatenate([model.shape_sigma, model.expression_sigma])
    a = np.moveaxis(basis[:, vertices], 0, -1).reshape(-1, len(basis))
    a = np.vstack([a, 0.1 * np.sqrt(len(vertices)) * np.diag(1 / sigma)])
    b = np.append(offsets[valid][pixel[vertices]].ravel(), np.zeros(len(sigma)))
    coefficients = np.linalg.lstsq(a, b, rcond=None)[0]
    mesh = model.mean + np.tensordot(coefficients, basis, 1)

    def project(parameters: np.ndarray, points: np.ndarray) -> np.ndarray:
        turned = Rotation.from_rotvec(parameters[1:4]).apply(points) + parameters[4:]
        return parameters[0] * turned[:, :2] / turned[:, 2:] + center

    pixels = both.pixels[pixel[vertices]]
    start = np.array([float(pncc.shape[0]), np.pi, 0, 0, 0, 0, 1200])
    fit = least_squares(
        lambda x: (project(x, mesh[vertices]) - pixels).ravel(),
        start,
        method="lm",
        x_scale=[100, 1, 1, 1, 10, 10, 100],
    )
    return project(fit.x, mesh)
