"""The package's types as its users see them, and hints wherever there is something to call."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "p2f_lib").rglob("*.py"))

# What `mypy --strict` asks of a module; the option itself would check the package anew, too.
STRICT = (
    "# mypy: disallow-any-generics, disallow-subclassing-any, disallow-untyped-calls\n"
    "# mypy: disallow-untyped-defs, disallow-incomplete-defs, disallow-untyped-decorators\n"
    "# mypy: warn-return-any, warn-unused-ignores, no-implicit-reexport, strict-equality\n"
    "# mypy: extra-checks\n"
)

USER = """
from typing import Any, assert_type

import numpy as np

from p2f_lib import Box, Face, MorphableModel, Reconstructor, Tracker, read_image
from p2f_lib.camera import PerspectiveCamera
from p2f_lib.export import write_glb
from p2f_lib.reconstruction import neutral_mesh, share_shape
from p2f_lib.tracker import Settings
from p2f_lib.video import open_source


def detect(image: np.ndarray[Any, Any]) -> list[Any]:
    return []


def reconstruct(photo: str, out: str) -> np.ndarray[Any, Any]:
    reconstructor = Reconstructor.from_pretrained(variant="fast", engine="onnxruntime")
    image = read_image(photo)
    faces = reconstructor(image)
    assert_type(faces, list[Face])
    faces.append(reconstructor.reconstruct(image, box=Box(1.0, 2.0, 30.0, 40.0)))
    faces.append(reconstructor.reconstruct(image, (1, 2, 30, 40)))
    for number, face in enumerate(faces):
        assert_type(face.camera, PerspectiveCamera)
        assert_type(face.pose.yaw, float)
        assert_type(face.confidence, float)
        print(face.vertices.shape, face.landmarks("ibug68")[:, 0], face.shape @ face.shape)
        face.save(f"{out}/{number}.glb")
        face.save(f"{out}/{number}.ply", what="mesh")
    write_glb(f"{out}/all.glb", neutral_mesh(share_shape(faces, reconstructor.fitter)))
    Tracker(reconstructor, settings=Settings(detect_every=5)).track(open_source("clip.mp4"), out)
    model = MorphableModel.load("face_model.safetensors")
    assert_type(model.coarse, MorphableModel | None)
    Reconstructor(model, reconstructor.unet, detector=detect)
    return model.vertices(faces[0].shape)
"""

# Programs that are wrong, and what mypy says of them.
WRONG = {
    "Reconstructor.from_pretrained(threads='4')": 'incompatible type "str"; expected "int | None"',
    "Reconstructor.from_pretrained(passes=2)": 'Unexpected keyword argument "passes"',
    "Reconstructor.from_pretrained()('photo.jpg')": 'incompatible type "str"; expected "ndarray',
    "Reconstructor.from_pretrained(detector=print)": 'expected "Detector | None"',
    "MorphableModel.load('x').vertexes()": 'has no attribute "vertexes"',
    "MorphableModel.load('x').coarse.mean": 'Item "None" of "MorphableModel | None"',
    "Reconstructr()": 'Module "p2f_lib" has no attribute "Reconstructr"',
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Module -> what mypy says of it; the package's own types come from `make lint`'s cache."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "user.py").write_text(STRICT + USER)
    for number, call in enumerate(WRONG):
        name = call.partition(".")[0].partition("(")[0]
        (folder / f"wrong_{number}.py").write_text(f"from p2f_lib import {name}\n{call}\n")
    command = [sys.executable, "-m", "mypy", *map(str, sorted(folder.glob("*.py")))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = {"all": [done.stdout + done.stderr]}
    for line in done.stdout.splitlines():  # the folder in it may be that of an earlier run
        said.setdefault(Path(line.partition(":")[0]).stem, []).append(line)
    return said


def test_a_strict_user_program_passes(said):
    assert "user" not in said, said["all"]
    assert "checked 8 source files" in said["all"][0]


@pytest.mark.parametrize("number", range(len(WRONG)), ids=list(WRONG))
def test_a_wrong_program_is_found_out(number, said):
    expected = list(WRONG.values())[number]
    assert any(expected in line for line in said.get(f"wrong_{number}", [])), said["all"]


def test_an_installed_package_has_types(tmp_path):
    """Elsewhere than in the repository, the file py.typed decides whether mypy looks at all."""
    (tmp_path / "user.py").write_text("from p2f_lib.errors import P2FError\n")
    command = [sys.executable, "-m", "mypy", "--follow-imports=skip", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def is_public(name):
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def public_functions(body):
    """Functions of a module, and methods of its classes, that are for others to call."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            yield node
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            yield from public_functions(node.body)


def missing_hints(function):
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    missing = [
        argument.arg
        for argument in arguments
        if argument is not None
        and argument.annotation is None
        and argument.arg not in ("self", "cls")
    ]
    return [*missing, *([] if function.returns else ["the result"])]


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(ROOT / "p2f_lib").as_posix()
)
def test_public_functions_have_hints(path):
    for function in public_functions(ast.parse(path.read_text()).body):
        missing = missing_hints(function)
        assert not missing, f"{path}:{function.lineno}: {function.name}: {', '.join(missing)}"


def test_the_check_of_hints_finds_what_is_missing():
    source = (
        "class A:\n    def f(self, x, *, y: int):\n        return x\n    def _g(self, x): ...\n"
    )
    (found,) = public_functions(ast.parse(source).body)
    assert missing_hints(found) == ["x", "the result"]
