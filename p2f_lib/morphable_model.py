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

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse

from p2f_lib.errors import P2FError

FORMAT = "p2f-face-model-1"


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
    coarse : the model that this one was subdivided from, None for a coarse model.
    levels : Loop steps from `coarse` to this mesh.
    """

    name: str
    mean: np.ndarray
    triangles: np.ndarray
    shape_basis: np.ndarray
    shape_sigma: np.ndarray
    expression_basis: np.ndarray
    expression_sigma: np.ndarray
    expression_names: tuple[str, ...]
    landmarks: dict[str, np.ndarray] = field(default_factory=dict)
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    coarse: MorphableModel | None = field(default=None, repr=False)
    levels: int = 0

    def __post_init__(self) -> None:
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

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    @property
    def n_shape(self) -> int:
        return len(self.shape_basis)

    @property
    def n_expression(self) -> int:
        return len(self.expression_basis)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 (hex) of what PNCC, offsets and coefficients mean: geometry and bases."""
        digest = hashlib.sha256(json.dumps([self.n_vertices, *self.expression_names]).encode())
        for key in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, key)).tobytes())
        return digest.hexdigest()

    @cached_property
    def _flat_bases(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            self.shape_basis.reshape(self.n_shape, -1),
            self.expression_basis.reshape(self.n_expression, -1),
        )

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
        P2FError : coefficients of the wrong number.
        """
        total = self.mean.reshape(-1)
        given = {"shape": shape, "expression": expression}
        for (kind, coefficients), basis in zip(given.items(), self._flat_bases, strict=True):
            if coefficients is None:
                continue
            coefficients = np.asarray(coefficients, dtype=np.float32)
            if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != len(basis):
                raise P2FError(
                    f"{kind} coefficients have shape {coefficients.shape}, but the face model "
                    f"{self.name!r} expects ({len(basis)},) or (N, {len(basis)})."
                )
            total = total + coefficients @ basis
        return total.reshape(*total.shape[:-1], -1, 3)

    def truncated(self, n_shape: int) -> MorphableModel:
        """The same model with only its first `n_shape` shape modes."""
        if not 0 <= n_shape <= self.n_shape:
            raise P2FError(f"Cannot keep {n_shape} shape modes of a model that has {self.n_shape}.")
        return replace(
            self,
            shape_basis=self.shape_basis[:n_shape],
            shape_sigma=self.shape_sigma[:n_shape],
            coarse=self.coarse and self.coarse.truncated(n_shape),
        )

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

        def refine(basis: np.ndarray) -> np.ndarray:
            return (
                np.stack([operator @ mode for mode in basis])
                if len(basis)
                else np.zeros((0, operator.shape[0], 3), np.float32)
            )

        return replace(
            self,
            mean=operator @ self.mean,
            triangles=triangles,
            shape_basis=refine(self.shape_basis),
            expression_basis=refine(self.expression_basis),
            regions={key: operator @ mask for key, mask in self.regions.items()},
            coarse=self.coarse or self,
            levels=self.levels + levels,
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

        Of a subdivided model only the coarse one and the number of steps are stored; `load`
        subdivides again.
        """
        coarse = self.coarse or self
        tensors = {key: np.ascontiguousarray(getattr(coarse, key)) for key in _ARRAYS}
        for key in ("shape_basis", "expression_basis"):
            tensors[key] = tensors[key].astype(np.float16)
        tensors |= {f"landmarks.{key}": value for key, value in coarse.landmarks.items()}
        tensors |= {
            f"regions.{key}": value.astype(np.float16) for key, value in coarse.regions.items()
        }
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
                if header.get("format") != FORMAT:
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
        arrays = {
            key: tensors[key].astype(np.int32 if key == "triangles" else np.float32)
            for key in _ARRAYS
        }
        groups: dict[str, dict[str, np.ndarray]] = {"landmarks": {}, "regions": {}}
        for key, tensor in tensors.items():
            group, dot, name = key.partition(".")
            if dot and group in groups:
                groups[group][name] = tensor.astype(
                    np.int32 if group == "landmarks" else np.float32
                )
        return cls(
            name=str(header["name"]),
            expression_names=tuple(map(str, header["expression_names"])),
            **arrays,
            **groups,
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
    sides = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges, edge_of_side, counts = np.unique(
        np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return edges, counts, edge_of_side.reshape(-1, 3)


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

    a, b, c = triangles.T
    ab, bc, ca = (n + edge_of_side).T
    corners = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    fine = np.transpose(corners, (2, 0, 1)).reshape(-1, 3)
    operator = sparse.vstack([even, odd]).tocsr()
    operator.eliminate_zeros()
    return operator, fine
