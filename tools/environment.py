"""Write environment.yml, the conda way in, from pyproject.toml: ``python tools/environment.py``."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Names on conda-forge that differ from PyPI's.
CONDA_NAMES = {
    "dlib-bin": "dlib",
    "matplotlib": "matplotlib-base",
    "opencv-python": "opencv",
    "torch": "pytorch",
}
PYPI_ONLY = {"anny", "playwright"}

HEADER = """\
# Written by tools/environment.py from pyproject.toml; do not edit.
#   conda env create -f environment.yml && conda activate pix2face && dvc pull data.dvc && dvc repro
"""


def requirements(project: dict) -> tuple[list[str], list[str]]:
    """Dependencies as conda-forge specs and as PyPI specs, each sorted.

    Parameters
    ----------
    project : dict
        The content of pyproject.toml.
    """
    groups = project["dependency-groups"]
    specs = project["project"]["dependencies"] + [
        spec for group in project["tool"]["uv"]["default-groups"] for spec in groups[group]
    ]
    conda, pypi = [], []
    for spec in specs:
        name, rest = re.fullmatch(r"([\w.-]+)(.*)", spec).groups()
        if name in PYPI_ONLY:
            pypi.append(spec)
        else:
            conda.append(CONDA_NAMES.get(name, name) + rest)
    return sorted(conda), sorted(pypi)


def environment(project: dict) -> str:
    """Text of environment.yml.

    Parameters
    ----------
    project : dict
        The content of pyproject.toml.
    """
    conda, pypi = requirements(project)
    python = "python" + project["project"]["requires-python"]
    lines = ["name: pix2face", "channels:", "  - conda-forge", "dependencies:"]
    lines += [f"  - {spec}" for spec in [python, "pip", *conda]]
    lines += ["  - pip:"] + [f"      - {spec}" for spec in [*pypi, "--editable ."]]
    return HEADER + "\n".join(lines) + "\n"


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (ROOT / "environment.yml").write_text(environment(project))


if __name__ == "__main__":
    main()
