"""Writers of small face models in the exact layouts of their publishers' files."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from tests.toy import egg

RNG_SEED = 5


@dataclass(frozen=True)
class Truth:
    """What a file says, in mm; a face is ``mean + sum of coefficient * deviation * unit mode``."""

    mean: np.ndarray  # (V, 3)
    triangles: np.ndarray  # (F, 3) counter-clockwise from outside
    shape: np.ndarray  # (3V, Ks) orthonormal
    shape_deviation: np.ndarray  # (Ks,)
    expression: np.ndarray  # (3V, Ke) orthonormal
    expression_deviation: np.ndarray  # (Ke,)
    expression_mean: np.ndarray  # (3V,)
    colors: np.ndarray  # (V, 3) in [0, 1]
    ibug68: np.ndarray  # (68,)

    def face(self, shape=None, expression=None, with_expression_mean=False) -> np.ndarray:
        """(V, 3) by the definition, in float64."""
        total = self.mean.ravel() + with_expression_mean * self.expression_mean
        for i, value in enumerate(() if shape is None else shape):
            total = total + value * self.shape_deviation[i] * self.shape[:, i]
        for i, value in enumerate(() if expression is None else expression):
            total = total + value * self.expression_deviation[i] * self.expression[:, i]
        return total.reshape(-1, 3)


def truth(n_vertices: int = 120, n_shape: int = 6, n_expression: int = 4) -> Truth:
    rng = np.random.default_rng(RNG_SEED)
    mean, triangles = egg(n_vertices)
    size = 3 * n_vertices
    modes = np.linalg.qr(rng.normal(size=(size, n_shape + n_expression)))[0]
    return Truth(
        mean=mean,
        triangles=triangles,
        shape=modes[:, :n_shape],
        shape_deviation=np.geomspace(60, 5, n_shape),
        expression=modes[:, n_shape:],
        expression_deviation=np.geomspace(30, 5, n_expression),
        expression_mean=rng.normal(size=size),
        colors=rng.uniform(size=(n_vertices, 3)),
        ibug68=rng.permutation(n_vertices)[:68],
    )


# --- MATLAB ---------------------------------------------------------------------------------------


def _f4(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32).reshape(len(np.atleast_1d(array)), -1)


def _matlab_triangles(triangles: np.ndarray) -> np.ndarray:
    """Clockwise and from 1, as in Basel's files; SciPy writes MATLAB's usual doubles."""
    return triangles[:, [0, 2, 1]].astype(np.float64) + 1


def write_basel2009(folder: Path, t: Truth, compressed: bool = True) -> Path:
    path = folder / "01_MorphableModel.mat"
    content = {
        "segbin": np.ones((len(t.mean), 4), np.uint8),  # not needed
        "shapeMU": _f4(t.mean.ravel() * 1000),
        "shapePC": _f4(t.shape),
        "shapeEV": _f4(t.shape_deviation * 1000),
        "texMU": _f4(t.colors.ravel() * 255),
        "texPC": _f4(t.shape),
        "texEV": _f4(t.shape_deviation),
        "tl": _matlab_triangles(t.triangles),
    }
    scipy.io.savemat(path, content, do_compression=compressed)
    return path


def threeddfa_content(t: Truth) -> dict[str, np.ndarray]:
    """Unscaled coefficients, as in 300W-LP: orthonormal shape modes, expressions of any length."""
    return {
        "mu_shape": _f4(t.mean.ravel() * 1000),
        "w": _f4(t.shape),
        "sigma": np.float64(t.shape_deviation * 1000)[:, None],
        "tri": _matlab_triangles(t.triangles).T,
        "keypoints": t.ibug68[None] + 1.0,
        "mu_exp": _f4(t.expression_mean * 1000),
        "w_exp": _f4(t.expression * t.expression_deviation * 1000),
        "sigma_exp": np.float64(np.full(t.expression.shape[1], 1.5))[:, None],
    }


def write_3ddfa(folder: Path, t: Truth, second: str = "Model_Exp.mat") -> Path:
    content = threeddfa_content(t)
    parts = {"Model_Shape.mat": ("mu_shape", "w", "sigma", "tri", "keypoints")}
    parts[second] = ("mu_exp", "w_exp", "sigma_exp")
    for name, keys in parts.items():
        scipy.io.savemat(folder / name, {key: content[key] for key in keys}, do_compression=True)
    return folder / "Model_Shape.mat"


def write_face3d(folder: Path, t: Truth) -> Path:
    content = threeddfa_content(t)
    names = {
        **{"mu_shape": "shapeMU", "w": "shapePC", "sigma": "shapeEV"},
        **{"mu_exp": "expMU", "w_exp": "expPC", "sigma_exp": "expEV"},
        **{"tri": "tri", "keypoints": "kpt_ind"},
    }
    model = {names[key]: value for key, value in content.items()}
    model |= {"texMU": _f4(t.colors.ravel() * 255), "tri_mouth": np.ones((3, 4)), "note": "text"}
    scipy.io.savemat(folder / "BFM.mat", {"model": model}, do_compression=True)
    return folder / "BFM.mat"


def write_lsfm(folder: Path, t: Truth, unit: float = 1000.0) -> Path:
    path = folder / "all_all_all.mat"
    content = {
        "mean": (t.mean.ravel() * unit)[None],
        "components": t.shape,
        "eigenvalues": ((t.shape_deviation * unit) ** 2)[None],
        "cumulative_explained_variance": np.linspace(0.9, 1, t.shape.shape[1])[None],
        "trilist": t.triangles.astype(np.uint32),
        "n_training_samples": 8402,
    }
    scipy.io.savemat(path, content)
    return path


def write_lyhm(folder: Path, t: Truth) -> Path:
    path = folder / "LYHM.mat"
    content = {
        "tri": {"faces": _matlab_triangles(t.triangles)},
        "shp": {
            "mu": t.mean.ravel()[None],
            "eigVec": t.shape,
            "eigVal": (t.shape_deviation**2)[:, None],
        },
        "tex": {"mu": t.colors.ravel()[None]},
    }
    scipy.io.savemat(path, content, do_compression=True)
    return path


# --- HDF5 -----------------------------------------------------------------------------------------


def write_basel2017(folder: Path, t: Truth) -> Path:
    path = folder / "model2017-1_bfm_nomouth.h5"
    parts = {
        "shape": (t.mean.ravel(), t.shape, t.shape_deviation),
        "color": (t.colors.ravel(), t.shape, t.shape_deviation),
        "expression": (t.expression_mean, t.expression, t.expression_deviation),
    }
    with h5py.File(path, "w") as file:
        for name, (mean, basis, deviation) in parts.items():
            file[f"{name}/model/mean"] = mean.astype(np.float32)
            file[f"{name}/model/pcaBasis"] = basis.astype(np.float32)
            file[f"{name}/model/pcaVariance"] = (deviation**2).astype(np.float32)
            file[f"{name}/model/noiseVariance"] = np.float32([0])
            file[f"{name}/representer/points"] = t.mean.T.astype(np.float32)
            file[f"{name}/representer/cells"] = t.triangles.T.astype(np.int32)
    return path


# --- FLAME: pickles -------------------------------------------------------------------------------


def flame_content(n_vertices: int = 90) -> dict[str, np.ndarray]:
    """Arrays of FLAME's shapes, metres: the joints of a head, and a jaw with soft weights."""
    rng = np.random.default_rng(RNG_SEED)
    vertices, triangles = egg(n_vertices)
    vertices = vertices / 1000
    chin = 1 / (1 + np.exp((vertices[:, 1] + 0.03) / 0.01)) * (vertices[:, 2] > 0)
    weights = np.zeros((n_vertices, 5))
    weights[:, 2], weights[:, 1] = 0.9 * chin, 1 - chin
    weights[:, 0], weights[:, 3] = 0.06 * chin, 0.04 * chin
    regressor = rng.uniform(size=(5, n_vertices)) * (rng.uniform(size=(5, n_vertices)) < 0.2)
    return {
        "v_template": vertices,
        "shapedirs": rng.normal(0, 1e-3, (n_vertices, 3, 400)),
        "posedirs": rng.normal(0, 1e-3, (n_vertices, 3, 36)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights,
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "f": triangles.astype(np.uint32),
        "J": rng.normal(size=(5, 3)),
    }


class Python2Pickle:
    """The bytes that Python 2.7's `cPickle` writes (protocol 2) for a FLAME model."""

    def __init__(self, content: dict[str, np.ndarray]) -> None:
        items = b"".join(self.text(key) + self._value(key, value) for key, value in content.items())
        plain = self.text("bs_type") + self.text("lrotmin") + self.text("bs_style")
        plain += self.text("lbs")
        self.data = b"\x80\x02}q\x00(" + items + plain + b"u."

    def _value(self, key: str, value: np.ndarray) -> bytes:
        if key == "J_regressor":
            return self.csc(scipy.sparse.csc_matrix(value))
        if key == "v_template":
            return self.chumpy(value)
        if key == "posedirs":  # as chumpy keeps a part of a larger array
            return self.select(value)
        return self.array(value)

    @staticmethod
    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    @staticmethod
    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def array(self, value: np.ndarray) -> bytes:
        order = b"\x88" if value.flags.f_contiguous and not value.flags.c_contiguous else b"\x89"
        raw = value.tobytes(order="A")
        kind = b"cnumpy\ndtype\n" + self.text(value.dtype.str[1:]) + b"K\x00K\x01\x87R"
        kind += b"(K\x03" + self.text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(self.integer(n) for n in value.shape) + b"t"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        data = b"T" + struct.pack("<I", len(raw)) + raw
        return made + b"(K\x01" + shape + kind + order + data + b"tb"

    def _object(self, module: str, name: str, state: dict[str, bytes]) -> bytes:
        items = b"".join(self.text(key) + value for key, value in state.items())
        return f"c{module}\n{name}\n".encode() + b")\x81}(" + items + b"ub"

    def chumpy(self, value: np.ndarray) -> bytes:
        changed = b"c__builtin__\nset\n](" + self.text("x") + b"e\x85R"
        return self._object("chumpy.ch", "Ch", {"x": self.array(value), "_dirty_vars": changed})

    def select(self, value: np.ndarray) -> bytes:
        padded = np.concatenate([[-1.0], value.ravel(), [-2.0]])
        shape = b"(" + b"".join(self.integer(n) for n in value.shape) + b"t"
        state = {
            "a": self.chumpy(padded),
            "idxs": self.array(np.arange(1, value.size + 1)),
            "preferred_shape": shape,
        }
        return self._object("chumpy.reordering", "Select", state)

    def csc(self, matrix: scipy.sparse.csc_matrix) -> bytes:
        parts = {key: self.array(getattr(matrix, key)) for key in ("data", "indices", "indptr")}
        shape = self.integer(matrix.shape[0]) + self.integer(matrix.shape[1]) + b"\x86"
        state = {"_shape": shape, "maxprint": self.integer(50), "format": self.text("csc")}
        return self._object("scipy.sparse.csc", "csc_matrix", state | parts)


def write_flame(folder: Path, content: dict[str, np.ndarray]) -> Path:
    path = folder / "generic_model.pkl"
    path.write_bytes(Python2Pickle(content).data)
    return path


# --- eos ------------------------------------------------------------------------------------------


def _matrix(array: np.ndarray) -> bytes:
    array = np.asarray(array, np.float32).reshape(len(array), -1)
    return struct.pack("<2i", *array.shape) + array.tobytes(order="F")


def surrey_texture(t: Truth) -> np.ndarray:
    """(V, 2) u right, v down, as eos counts."""
    return np.random.default_rng(RNG_SEED).uniform(size=(len(t.mean), 2))


def surrey_offset(t: Truth) -> np.ndarray:
    """(3,) of the file's frame: its origin is at the tip of the nose."""
    return -t.mean[np.argmax(t.mean[:, 2])]


def write_surrey(folder: Path, t: Truth, version: int = 1) -> Path:
    path = folder / "sfm_shape_3448.bin"
    texture = surrey_texture(t)
    mean = (t.mean + surrey_offset(t)).ravel()
    path.write_bytes(
        struct.pack("<I", version)
        + _matrix(mean)
        + _matrix(t.shape)
        + _matrix(t.shape_deviation**2)
        + struct.pack("<Q", len(t.triangles))
        + t.triangles.astype("<i4").tobytes()
        + struct.pack("<2i2i2i", 0, 1, 0, 0, 0, 1)
        + struct.pack("<Q", 0)
        + struct.pack("<Q", len(texture))
        + texture.astype("<f8").tobytes()
    )
    names = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    names = names[: t.expression.shape[1]]
    data = struct.pack("<Q", len(names))
    for i, name in enumerate(names):
        data += struct.pack("<Q", len(name)) + name.encode()
        data += _matrix(t.expression[:, i] * t.expression_deviation[i])
    (folder / "expression_blendshapes_3448.bin").write_bytes(data)
    return path


def write_ibug_to_sfm(folder: Path, mapping: dict[int, int]) -> None:
    lines = [f"{point:2} = {vertex:5}  # a comment" for point, vertex in mapping.items()]
    text = "# TOML\n[landmark_mappings]\n" + "\n".join(lines)
    (folder / "ibug_to_sfm.txt").write_text(text + "\n\n[contour_landmarks]\nright = [1,\n 2]\n")


# --- ICT ------------------------------------------------------------------------------------------

ICT_EXPRESSIONS = ("browDown_L", "browInnerUp_L", "browInnerUp_R", "jawOpen")


@dataclass(frozen=True)
class Ict:
    """The whole mesh of ICT-FaceKit, cm: a face that is a grid of 97 x 97, other parts as dots."""

    vertices: np.ndarray  # (26719, 3)
    quads: np.ndarray  # (26384, 4) from 0
    texture: np.ndarray  # (T, 2)
    texture_quads: np.ndarray  # (26384, 4)
    moves: dict[str, np.ndarray]  # file -> (26719, 3)
    ibug68: np.ndarray


def ict() -> Ict:
    rng = np.random.default_rng(RNG_SEED)
    n, side = 26719, 97
    vertices = rng.normal((0, 0, 5), 1, (n, 3))  # what is inside
    across, up = np.meshgrid(np.linspace(-1.4, 1.4, side), np.linspace(-1.3, 1.3, side))
    face = np.stack([np.sin(across) * np.cos(up), np.sin(up), np.cos(across) * np.cos(up)], -1)
    vertices[: side**2] = face.reshape(-1, 3) * [7.5, 11, 9]
    back = rng.normal(size=(11248 - side**2, 3))
    back[:, 2] = -np.abs(back[:, 2])
    vertices[side**2 : 11248] = back / np.linalg.norm(back, axis=1, keepdims=True) * 8.5
    for start, x in ((21451, 3), (23021, -3)):
        ball = rng.normal(size=(1570, 3))
        ball *= 1.2 / np.linalg.norm(ball, axis=1, keepdims=True)
        vertices[start : start + 1570] = ball + np.array([x, 3, 8])
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    grid = corner[:, None] + [0, 1, side + 1, side]
    eyes = 21451 + np.arange(400)[:, None] + [0, 1, 2, 3]
    n_others = 26384 - len(grid) - len(eyes)
    others = 11248 + rng.integers(0, 21451 - 11248, (n_others, 4))
    moves = {name: np.zeros((n, 3)) for name in ("identity000", "identity001", *ICT_EXPRESSIONS)}
    for move in moves.values():
        move[rng.permutation(n)[:2000]] = rng.normal(0, 0.5, (2000, 3))
    return Ict(
        vertices=vertices,
        quads=np.concatenate([grid, others[:5000], eyes, others[5000:]]),
        texture=rng.uniform(size=(28911, 2)),
        texture_quads=rng.integers(0, 28911, (26384, 4)),
        moves=moves,
        ibug68=rng.permutation(side**2)[:68],
    )


def _block(kind: str, array: np.ndarray) -> bytes:
    line = f"{kind} " + " ".join(["%.9f"] * array.shape[1]) + "\n"
    return (line * len(array) % tuple(array.ravel())).encode()


def write_ict(folder: Path, model: Ict) -> Path:
    folder = folder / "FaceXModel"
    folder.mkdir()
    places = np.stack([model.quads, model.texture_quads], -1).reshape(-1, 8) + 1
    line = "f %d/%d %d/%d %d/%d %d/%d\n"
    rest = _block("vt", model.texture) + b"g face\nusemtl face\n"
    rest += (line * len(places) % tuple(places.ravel())).encode()
    head = b"mtllib ICTFaceModelMaterial.mtl\n"
    neutral = folder / "generic_neutral_mesh.obj"
    neutral.write_bytes(head + _block("v", model.vertices) + rest)
    for name, move in model.moves.items():
        data = head + _block("v", model.vertices + move) + b"vt 0.5 0.5\n"
        (folder / f"{name}.obj").write_bytes(data)
    facts = {
        "expressions": list(ICT_EXPRESSIONS),
        "idx_to_landmark_verts": model.ibug68.tolist(),
        "idx_to_fitting_verts": [2, 3],
    }
    (folder / "vertex_indices.json").write_text(json.dumps(facts))
    return neutral
