"""Linear 3D face models: a mean mesh, shape and expression modes, landmarks, painted regions.

Frame: millimetres, x to the picture's right (the subject's left), y up, z out of the face. The
origin lies inside the head, so that no surface point comes near 0, the background code of PNCC
images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse

from p2f_lib.errors import P2FError

FORMAT = "p2f-face-model-2"
UNSCALED_FORMAT = "p2f-face-model-1"  # the same with bases in mm per unit; still read


@dataclass(frozen=True, eq=False)
class Refinement:
    """How a subdivided model follows from a coarse one.

    Attributes
    ----------
    coarse : the model that was subdivided.
    operator : (V', V) float32 sparse matrix from its vertices to the fine ones.
    levels : Loop steps that the operator stands for.
    """

    coarse: MorphableModel
    operator: sparse.csr_matrix
    levels: int

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(N, V, 3) float32 of the coarse mesh, such as meshes or modes, to (N, V', 3)."""
        fine = np.empty((len(points), self.operator.shape[0], 3), np.float32)
        _refine(*self._rows, np.ascontiguousarray(points, np.float32), fine)
        return fine

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each row of the operator starts, its columns, its weights."""
        starts, columns = self.operator.indptr, self.operator.indices
        return starts.astype(np.uint32), columns.astype(np.uint32), self.operator.data

    @cached_property
    def mean(self) -> np.ndarray:
        return self(self.coarse.mean[None])[0]

    @cached_property
    def shape_basis(self) -> np.ndarray:
        return self(self.coarse.shape_basis)

    @cached_property
    def expression_basis(self) -> np.ndarray:
        return self(self.coarse.expression_basis)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _refine(starts, columns, weights, points, fine):
    """Product of a sparse matrix (unsigned indices) with each of many (V, 3) arrays."""
    for n in range(len(points)):
        for row in range(len(starts) - 1):
            x = y = z = np.float32(0)
            for k in range(starts[row], starts[row + 1]):
                column, weight = columns[k], weights[k]
                x += weight * points[n, column, 0]
                y += weight * points[n, column, 1]
                z += weight * points[n, column, 2]
            fine[n, row, 0], fine[n, row, 1], fine[n, row, 2] = x, y, z


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """A face is ``mean + shape @ shape_basis + expression @ expression_basis``.

    Attributes
    ----------
    name : what the model was made from.
    mean : (V, 3) float32, mm.
    triangles : (F, 3) int32, counter-clockwise seen from outside (x right, y up).
    shape_basis : (Ks, V, 3) float32, mm per unit coefficient.
    shape_sigma : (Ks,) float32, standard deviations of the coefficients.
    expression_basis : (Ke, V, 3) float32, mm per unit coefficient.
    expression_sigma : (Ke,) float32.
    expression_names : Ke names.
    landmarks : mark-up name -> vertex indices, int32: "ibug68" (68,), "menpo84" (84,).
    regions : region name -> (V,) float32 soft mask in [0, 1], for synthesis; the one exception is
        "gaze_radius", a distance in mm.
    colors : (V, 3) float32, the mean's display RGB in [0, 1], None where the source has none.
    texture_coordinates : (T, 2) float32 in [0, 1], u right and v up, or None. Their own vertices,
        because a seam gives one place of the surface two places in the texture.
    texture_triangles : (F, 3) int32, texture coordinates of each triangle's corners, or None.
    refinement : how this model follows from a coarse one, None for a model of its own. The dense
        bases of a model that follows may be given as None: blending goes through the coarse mesh,
        and they are made when somebody asks for them. A model that is given another mean or other
        bases follows no more.
    """

    name: str
    mean: np.ndarray
    triangles: np.ndarray
    shape_basis: np.ndarray = field(repr=False)
    shape_sigma: np.ndarray
    expression_basis: np.ndarray = field(repr=False)
    expression_sigma: np.ndarray
    expression_names: tuple[str, ...]
    landmarks: dict[str, np.ndarray] = field(default_factory=dict)
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    colors: np.ndarray | None = None
    texture_coordinates: np.ndarray | None = None
    texture_triangles: np.ndarray | None = None
    refinement: Refinement | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._settle_refinement()
        n, ks, ke = self.n_vertices, self.n_shape, self.n_expression
        expected = {
            "mean": (n, 3),
            "triangles": (len(self.triangles), 3),
            "shape_basis": (ks, n, 3),
            "shape_sigma": (ks,),
            "expression_basis": (ke, n, 3),
            "expression_sigma": (ke,),
        }
        for key, shape in expected.items():
            if key not in self.__dict__:  # follows from a basis that was checked
                continue
            array = getattr(self, key)
            if array.shape != shape:
                raise P2FError(
                    f"Face model {self.name!r}: {key} has shape {array.shape}, expected {shape}."
                )
            if not np.isfinite(array).all():
                raise P2FError(f"Face model {self.name!r}: {key} holds NaN or infinite values.")
        if len(self.expression_names) != ke:
            raise P2FError(
                f"Face model {self.name!r}: {len(self.expression_names)} expression names for "
                f"{ke} expression modes."
            )
        for key, mask in self.regions.items():
            if mask.shape != (n,):
                raise P2FError(
                    f"Face model {self.name!r}: region {key!r} has shape {mask.shape}, "
                    f"expected {(n,)}."
                )
        if self.triangles.size and not 0 <= self.triangles.min() <= self.triangles.max() < n:
            raise P2FError(
                f"Face model {self.name!r}: triangles point outside the {n} vertices of the mesh."
            )
        self._check_appearance()

    def _settle_refinement(self) -> None:
        """Leave the bases to the refinement, or the refinement out where it says otherwise."""
        if self.refinement is None:
            return
        own = {key: self.__dict__.pop(key) for key in ("shape_basis", "expression_basis")}
        made = self.refinement.__dict__
        if self.mean is not self.refinement.mean or any(
            basis is not None and basis is not made.get(key) for key, basis in own.items()
        ):
            for key, basis in own.items():
                basis = getattr(self.refinement, key) if basis is None else basis
                object.__setattr__(self, key, basis)
            object.__setattr__(self, "refinement", None)

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, key: str) -> np.ndarray:
            # Called for what isn't there: the bases of a model that follows from a coarse one.
            refinement = self.__dict__.get("refinement")
            if refinement is not None and key in ("shape_basis", "expression_basis"):
                return getattr(refinement, key)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {key!r}")

    def _check_appearance(self) -> None:
        """Raise P2FError unless colours and texture fit the mesh."""
        where = f"Face model {self.name!r}:"
        for key, shape in (("colors", (self.n_vertices, 3)), ("texture_coordinates", (-1, 2))):
            array = getattr(self, key)
            if array is None:
                continue
            if array.ndim != 2 or array.shape[1] != shape[1] or shape[0] not in (-1, len(array)):
                wanted = str(shape).replace("-1", "T")
                raise P2FError(f"{where} {key} has shape {array.shape}, expected {wanted}.")
            if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
                raise P2FError(f"{where} {key} must lie between 0 and 1.")
        coordinates, triangles = self.texture_coordinates, self.texture_triangles
        if (coordinates is None) != (triangles is None):
            raise P2FError(f"{where} texture_coordinates and texture_triangles need each other.")
        if coordinates is None or triangles is None:
            return
        if triangles.shape != self.triangles.shape:
            raise P2FError(
                f"{where} texture_triangles has shape {triangles.shape}, expected "
                f"{self.triangles.shape}, as triangles."
            )
        if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(coordinates):
            raise P2FError(
                f"{where} texture_triangles point outside the {len(coordinates)} texture "
                "coordinates."
            )

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    @property
    def n_shape(self) -> int:
        return len(self.shape_sigma)

    @property
    def n_expression(self) -> int:
        return len(self.expression_sigma)

    @property
    def coarse(self) -> MorphableModel | None:
        """The model that this one was subdivided from, None for a model of its own."""
        return None if self.refinement is None else self.refinement.coarse

    @property
    def levels(self) -> int:
        """Loop steps from `coarse` to this mesh."""
        return self.refinement.levels if self.refinement else 0

    @cached_property
    def checksum(self) -> str:
        """SHA-256 (hex) of what PNCC, offsets and coefficients mean: geometry and bases."""
        digest = hashlib.sha256(json.dumps([self.n_vertices, *self.expression_names]).encode())
        for key in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, key)).tobytes())
        return digest.hexdigest()

    def vertices(
        self, shape: np.ndarray | None = None, expression: np.ndarray | None = None
    ) -> np.ndarray:
        """The mesh of one or many faces.

        Parameters
        ----------
        shape : (Ks,) or (N, Ks) coefficients, None for the mean shape.
        expression : (Ke,) or (N, Ke) coefficients, None for the neutral face.

        Returns
        -------
        (V, 3) or (N, V, 3) float32, mm, model space.

        Raises
        ------
        P2FError : coefficients of the wrong number, more faces of the one than of the other.
        """
        if self.refinement:
            coarse = self.refinement.coarse.vertices(shape, expression)
            fine = self.refinement(coarse.reshape(-1, *coarse.shape[-2:]))
            return fine.reshape(*coarse.shape[:-2], -1, 3)
        given = []
        for kind, coefficients in (("shape", shape), ("expression", expression)):
            if coefficients is None:
                continue
            coefficients = np.asarray(coefficients, dtype=np.float32)
            basis = getattr(self, f"{kind}_basis")
            if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != len(basis):
                raise P2FError(
                    f"{kind} coefficients have shape {coefficients.shape}, but the face model "
                    f"{self.name!r} expects ({len(basis)},) or (N, {len(basis)})."
                )
            given.append((coefficients, basis.reshape(len(basis), self.mean.size)))
        counts = {len(rows) for rows, _ in given if rows.ndim == 2}
        if len(counts - {1}) > 1:
            raise P2FError(
                f"There are {len(given[0][0])} shapes for {len(given[1][0])} expressions."
            )
        count = max(counts, default=1)
        total = np.empty((count, self.mean.size), self.mean.dtype)
        total[:] = self.mean.reshape(-1)
        for coefficients, basis in given:
            rows = np.broadcast_to(np.atleast_2d(coefficients), (count, len(basis)))
            _add_modes(np.ascontiguousarray(rows), np.ascontiguousarray(basis), total)
        return total.reshape(*([count] if counts else []), -1, 3)

    def truncated(self, n_shape: int) -> MorphableModel:
        """The same model with only its first `n_shape` shape modes."""
        if not 0 <= n_shape <= self.n_shape:
            raise P2FError(f"Cannot keep {n_shape} shape modes of a model that has {self.n_shape}.")
        sigma = self.shape_sigma[:n_shape]
        if self.refinement is None:
            return replace(self, shape_basis=self.shape_basis[:n_shape], shape_sigma=sigma)
        refinement = replace(self.refinement, coarse=self.refinement.coarse.truncated(n_shape))
        return self._following(refinement, shape_sigma=sigma)

    def _following(self, refinement: Refinement, **changes: Any) -> MorphableModel:
        """A copy with some changes whose mean and bases are those of `refinement`."""
        # None stands for those of the refinement, as the class says; nobody else sees it.
        bases: dict[str, Any] = dict.fromkeys(("shape_basis", "expression_basis"))
        return replace(self, mean=refinement.mean, refinement=refinement, **bases, **changes)

    def subdivided(self, levels: int = 1) -> MorphableModel:
        """A finer model after `levels` Loop steps; coarse vertices keep their indices.

        One sparse linear operator carries the mean, the bases and the regions alike, so a
        subdivided face is the face of the subdivided model.
        """
        if levels < 0:
            raise P2FError(f"Subdivision levels must be at least 0, got {levels}.")
        if levels == 0:
            return self
        operator, triangles = loop_operator(self.n_vertices, self.triangles, levels)
        coordinates, corners = self.texture_coordinates, self.texture_triangles
        if coordinates is not None and corners is not None:
            for _ in range(levels):
                coordinates, corners = _midpoint_step(coordinates, corners)
        whole = operator @ self.refinement.operator if self.refinement else operator
        return self._following(
            Refinement(self.coarse or self, whole, self.levels + levels),
            triangles=triangles,
            regions={key: operator @ mask for key, mask in self.regions.items()},
            colors=None if self.colors is None else np.clip(operator @ self.colors, 0, 1),
            texture_coordinates=coordinates,
            texture_triangles=corners,
        )

    def variance_summary(self) -> dict[str, float]:
        """Components for 90, 95 and 99 % of the shape variance, and rms deviation per vertex (mm).

        Relative to the modes that the model holds.
        """
        variance = ((self.shape_basis * self.shape_sigma[:, None, None]) ** 2).sum(axis=(1, 2))
        share = np.cumsum(variance) / max(variance.sum(), np.finfo(np.float32).tiny)
        summary = {
            f"components_{percent}": int(np.searchsorted(share, percent / 100) + 1)
            for percent in (90, 95, 99)
        }
        return summary | {"rms_mm": float(np.sqrt(variance.sum() / max(self.n_vertices, 1)))}

    def save(self, path: str | Path) -> None:
        """Write the coarse mesh as safetensors: mean in float32, bases in float16.

        The numbers in float16 are mm per standard deviation (to the next power of two, which
        rounds nothing), so that models whose coefficients are large or small lose no digits. Of a
        subdivided model only the coarse one and the number of steps are stored; `load` subdivides
        again.
        """
        coarse = self.coarse or self
        tensors = {key: np.ascontiguousarray(getattr(coarse, key)) for key in _ARRAYS}
        for kind in ("shape", "expression"):
            basis, scale = tensors[f"{kind}_basis"], _power_of_two(tensors[f"{kind}_sigma"])
            tensors[f"{kind}_basis"] = (basis * scale).astype(np.float16)
        tensors |= {f"landmarks.{key}": value for key, value in self.landmarks.items()}
        tensors |= {
            f"regions.{key}": value.astype(np.float16) for key, value in coarse.regions.items()
        }
        for key, dtype in _APPEARANCE.items():
            if (value := getattr(coarse, key)) is not None:
                tensors[key] = value.astype(dtype)
        # No negative zeros: which sign a sum of nothing gets depends on the order of its terms.
        tensors = {key: value + value.dtype.type(0) for key, value in tensors.items()}
        header = {
            "format": FORMAT,
            "name": coarse.name,
            "expression_names": list(coarse.expression_names),
            "levels": self.levels,
        }
        # One entry: the order of several isn't kept, and the file should be the same bytes.
        save_file(tensors, str(path), metadata={"face_model": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path, subdivisions: int | None = None) -> MorphableModel:
        """Read a model written by `save` and subdivide it.

        Parameters
        ----------
        path : a safetensors file; nothing in it is executed.
        subdivisions : Loop steps; None for those of the saved model. The embedded model has about
            13 k vertices after 1 and 50 k, as in the paper, after 2.

        Raises
        ------
        P2FError : missing, truncated or alien file, or arrays that don't fit each other.
        """
        path = Path(path)
        if not path.is_file():
            raise P2FError(f"There is no face model at {path}. Build one first: `make repro`.")
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = json.loads((file.metadata() or {}).get("face_model", "{}"))
                if header.get("format") not in (FORMAT, UNSCALED_FORMAT):
                    raise P2FError(
                        f"{path} is not a face model of this project (its format says "
                        f"{header.get('format')!r}, expected {FORMAT!r})."
                    )
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            model = cls._from_tensors(tensors, header)
            levels = int(header["levels"]) if subdivisions is None else subdivisions
            if not 0 <= levels <= MAX_LEVELS:
                raise P2FError(
                    f"{path} asks for {levels} Loop steps, at most {MAX_LEVELS} are done."
                )
        except P2FError:
            raise
        except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise P2FError(
                f"{path} cannot be read as a face model (truncated, damaged or not one): {error}."
            ) from error
        return model.subdivided(levels)

    @classmethod
    def _from_tensors(cls, tensors: Mapping[str, np.ndarray], header: dict) -> MorphableModel:
        arrays: dict[str, Any] = {
            key: tensors[key].astype(np.int32 if key == "triangles" else np.float32, copy=False)
            for key in _ARRAYS
        }
        if header["format"] == FORMAT:
            for kind in ("shape", "expression"):
                arrays[f"{kind}_basis"] /= _power_of_two(arrays[f"{kind}_sigma"])
        groups: dict[str, Any] = {"landmarks": {}, "regions": {}}
        for key, tensor in tensors.items():
            group, dot, name = key.partition(".")
            if dot and group in groups:
                groups[group][name] = tensor.astype(
                    np.int32 if group == "landmarks" else np.float32
                )
        appearance: dict[str, Any] = {
            key: tensors[key].astype(np.int32 if dtype is np.int32 else np.float32)
            for key, dtype in _APPEARANCE.items()
            if key in tensors
        }
        return cls(
            name=str(header["name"]),
            expression_names=tuple(map(str, header["expression_names"])),
            **arrays,
            **groups,
            **appearance,
        )


MAX_LEVELS = 3  # 200 k vertices; each step has four times as many
_ARRAYS = (
    "mean",
    "triangles",
    "shape_basis",
    "shape_sigma",
    "expression_basis",
    "expression_sigma",
)
_APPEARANCE = {  # optional; how a file holds them
    "colors": np.float16,
    "texture_coordinates": np.float32,  # float16 would round to whole pixels of a large texture
    "texture_triangles": np.int32,
}


def _power_of_two(sigma: np.ndarray) -> np.ndarray:
    """(K, 1, 1) float32, the power of two at or below each standard deviation; 1 where that is 0.

    Multiplying by it and dividing again is exact.
    """
    exponent = np.where(sigma > 0, np.frexp(sigma)[1] - 1, 0)
    return np.ldexp(np.float32(1), exponent)[:, None, None]


@numba.njit(cache=True, nogil=True)
def _add_modes(coefficients, basis, total):
    """``total += coefficients @ basis``: (N, K), (K, M), (N, M).

    No BLAS: its threads would wait actively beside those of a training network, and round
    differently for another number of them.
    """
    # Parts of the basis stay in a cache from face to face; for one face it's read in long runs.
    run = 1024 if len(coefficients) > 1 else 16384
    for start in range(0, basis.shape[1], run):
        stop = min(start + run, basis.shape[1])
        for n in range(len(coefficients)):
            row = total[n, start:stop]
            k = 0
            while k + 4 <= len(basis):
                a, b = coefficients[n, k], coefficients[n, k + 1]
                c, d = coefficients[n, k + 2], coefficients[n, k + 3]
                if a == b == c == d == 0:  # of the units of an expression most rest
                    k += 4
                    continue
                p, q = basis[k, start:stop], basis[k + 1, start:stop]
                r, s = basis[k + 2, start:stop], basis[k + 3, start:stop]
                for i in range(stop - start):
                    row[i] += (a * p[i] + b * q[i]) + (c * r[i] + d * s[i])
                k += 4
            while k < len(basis):
                a, p = coefficients[n, k], basis[k, start:stop]
                for i in range(stop - start):
                    row[i] += a * p[i]
                k += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit normals, each the area-weighted mean of its triangles' normals."""
    normals = np.zeros((len(vertices), 3), np.float32)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in range(3):
            i = triangles[t, corner]
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(len(normals)):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0:
            for k in range(3):
                normals[i, k] /= length
    return normals


def triangles_around(triangles: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """The triangles of each vertex, ascending, one vertex after the other.

    Returns
    -------
    starts : (V + 1,) int64, where each vertex's triangles begin.
    around : (3 F,) int32, indices of triangles.
    """
    corners = triangles.ravel()
    starts = np.concatenate([[0], np.cumsum(np.bincount(corners, minlength=n_vertices))])
    return starts, (np.argsort(corners, kind="stable") // 3).astype(np.int32)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def normals_of_rows(
    vertices: np.ndarray,
    triangles: np.ndarray,
    starts: np.ndarray,
    around: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """`vertex_normals` of some `rows`; `starts` and `around` are from `triangles_around`."""
    normals = np.zeros((len(rows), 3), np.float32)
    for n in range(len(rows)):
        x = y = z = np.float32(0)
        for place in range(starts[rows[n]], starts[rows[n] + 1]):
            t = around[place]
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ux, uy, uz = (
                vertices[b, 0] - vertices[a, 0],
                vertices[b, 1] - vertices[a, 1],
                vertices[b, 2] - vertices[a, 2],
            )
            vx, vy, vz = (
                vertices[c, 0] - vertices[a, 0],
                vertices[c, 1] - vertices[a, 1],
                vertices[c, 2] - vertices[a, 2],
            )
            x += uy * vz - uz * vy
            y += uz * vx - ux * vz
            z += ux * vy - uy * vx
        length = np.sqrt(x**2 + y**2 + z**2)
        if length > 0:
            x, y, z = x / length, y / length, z / length
        normals[n, 0], normals[n, 1], normals[n, 2] = x, y, z
    return normals


def edges_of(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unique undirected edges of a triangle mesh.

    Parameters
    ----------
    triangles : (F, 3) vertex indices.

    Returns
    -------
    edges : (E, 2) vertex indices, smaller first.
    counts : (E,) number of triangles at each edge (1 on the boundary).
    edge_of_side : (F, 3) edge index of the sides (0, 1), (1, 2), (2, 0) of each triangle.
    """
    turned = triangles[:, [1, 2, 0]]
    low, high = np.minimum(triangles, turned), np.maximum(triangles, turned)
    base = int(high.max(initial=0)) + 1
    keys = low.astype(np.int64) * base + high  # one number an edge: much faster to sort than pairs
    keys, edge_of_side, counts = np.unique(keys, return_inverse=True, return_counts=True)
    edges = np.stack(np.divmod(keys, base), axis=1).astype(triangles.dtype)
    return edges, counts, edge_of_side.reshape(-1, 3)


def boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """The boundary of a manifold mesh as closed loops of vertices in their triangles' order.

    Longest first: of a face model its outline, then the mouth and what else is open.
    """
    sides = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).astype(np.int64)
    base = int(sides.max(initial=0)) + 1
    key = sides[:, 0] * base + sides[:, 1]
    open_sides = sides[~np.isin(key, sides[:, 1] * base + sides[:, 0])]
    following = {int(a): int(b) for a, b in open_sides}
    loops = []
    while following:
        start, vertex = next(iter(following.items()))
        loop = [start]
        del following[start]
        while vertex != start and vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop, np.int32))
    return sorted(loops, key=len, reverse=True)


def loop_operator(
    n_vertices: int, triangles: np.ndarray, levels: int = 1
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Loop subdivision as one sparse matrix (Loop 1987; Warren's weights inside).

    Boundary edges are creases: their curve is the cubic B-spline of the boundary alone, so a cut
    edge stays smooth and doesn't shrink into the surface.

    Parameters
    ----------
    n_vertices : V
    triangles : (F, 3) vertex indices of a manifold mesh, possibly with boundary.
    levels : number of steps.

    Returns
    -------
    operator : (V', V) float32; rows sum to 1, the first V rows are the coarse vertices.
    triangles : (4^levels F, 3) int32, same orientation.
    """
    operator = sparse.identity(n_vertices, dtype=np.float64, format="csr")
    for _ in range(levels):
        step, triangles = _loop_step(operator.shape[0], triangles)
        operator = step @ operator
    return operator.astype(np.float32), triangles.astype(np.int32)


def _loop_step(n: int, triangles: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    edges, counts, edge_of_side = edges_of(triangles)
    if counts.max(initial=0) > 2:
        raise P2FError("Loop subdivision needs a manifold mesh: an edge has over two triangles.")
    on_boundary = counts == 1

    # New vertices, one on each edge: half of either end on the boundary; inside 3/8 of either end
    # and 1/8 of each opposite corner.
    n_edges = len(edges)
    ends = np.where(on_boundary, 1 / 2, 3 / 8)
    opposite = triangles[:, [2, 0, 1]]
    inner = ~on_boundary[edge_of_side]
    odd = sparse.coo_matrix(
        (
            np.concatenate([ends, ends, np.full(inner.sum(), 1 / 8)]),
            (
                np.concatenate([np.arange(n_edges), np.arange(n_edges), edge_of_side[inner]]),
                np.concatenate([edges[:, 0], edges[:, 1], opposite[inner]]),
            ),
        ),
        shape=(n_edges, n),
    )

    # Old vertices: 1/8, 3/4, 1/8 along a boundary; inside beta to each of k neighbours.
    boundary_vertex = np.zeros(n, bool)
    boundary_vertex[edges[on_boundary]] = True
    both_ways = np.concatenate([edges, edges[:, ::-1]])
    along = np.concatenate([on_boundary, on_boundary])
    boundary_degree = np.bincount(both_ways[along, 0], minlength=n)
    if (boundary_degree > 2).any():
        raise P2FError("Loop subdivision needs a manifold mesh: two boundaries touch at a vertex.")
    degree = np.bincount(both_ways[:, 0], minlength=n)
    beta = np.where(degree == 3, 3 / 16, 3 / 8 / np.maximum(degree, 1))
    row, column = both_ways.T
    weight = np.where(boundary_vertex[row], np.where(along, 1 / 8, 0.0), beta[row])
    even = sparse.coo_matrix((weight, (row, column)), shape=(n, n)).tocsr()
    even = even + sparse.diags(1 - np.asarray(even.sum(axis=1)).ravel())

    operator = sparse.vstack([even, odd]).tocsr()
    operator.eliminate_zeros()
    return operator, _split(triangles, n + edge_of_side)


def _midpoint_step(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear subdivision: a new point in the middle of each edge, children as in `_loop_step`."""
    edges, _, edge_of_side = edges_of(triangles)
    middles = points[edges].mean(axis=1, dtype=np.float32)
    fine = _split(triangles, len(points) + edge_of_side)
    return np.concatenate([points, middles]), fine.astype(np.int32)


def _split(triangles: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """(4F, 3) children of (F, 3) triangles, given the vertices (F, 3) in the middles of sides."""
    a, b, c = triangles.T
    ab, bc, ca = middles.T
    corners = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    return np.transpose(corners, (2, 0, 1)).reshape(-1, 3)
