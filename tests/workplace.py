"""What the commands of the documentation find in the tests: programs, and their files in small."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import yaml

from p2f_lib.datasets import menpo3d
from p2f_lib.datasets.landmark_files import write_pts
from p2f_lib.images import write_image
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.robustness import bundled_picture
from tests import warm
from tests.miniatures import SIDE, basel_toy, write_face

ROOT = Path(__file__).resolve().parents[1]
N_FRAMES = 4  # of every video

# --- programs -------------------------------------------------------------------------------------

# Python's place is taken by a process that has everything loaded; see tests/warm.py.
PYTHON = 'exec "{python}" -IS "{warm}" "{socket}"'
TORCHRUN = 'export PYTHON_EXEC="${{0%/*}}/python"\n' + PYTHON + ' -m torch.distributed.run "$@"'

# The environment is there: whether it is that of uv.lock is all that is left to say.
UV = """
case $1 in
  sync) UV_PROJECT_ENVIRONMENT="{prefix}" {uv} sync --check --inexact --frozen --offline \\
    --no-install-project --quiet ;;
  run) shift; exec "$@" ;;
  --version) echo uv ;;
esac"""

# Nothing is installed, but what is activated has to be what was made.
CONDA = """
case $1 in
  env) sed -n "s/^name: //p" "$4" > made_by_conda ;;
  activate) grep -qx "$2" made_by_conda ;;
esac"""

# As many processes as the trainer is told of, each with what SLURM lets it know.
SRUN = """
option() {{ sed -E "s/.*--$1 ([0-9]+).*/\\1/" <<< "$words"; }}
words="$*"
nodes=$(option nodes) each=$(option devices)
export SLURM_JOB_ID=4242 SLURM_JOB_NAME=p2f SLURM_NODELIST=127.0.0.1 SLURM_NNODES=$nodes
export SLURM_NTASKS=$((nodes * each)) SLURM_NTASKS_PER_NODE=$each
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  SLURM_PROCID=$rank SLURM_LOCALID=$((rank % each)) SLURM_NODEID=$((rank / each)) "$@" &
  tasks+=($!)
done
for task in "${{tasks[@]}}"; do wait "$task"; done"""

PROGRAMS = {
    "python": f'{PYTHON} "$@"',
    "p2f": f'{PYTHON} -m p2f_lib.cli "$@"',
    "torchrun": TORCHRUN,
    "uv": UV,
    "conda": CONDA,
    "srun": SRUN,
}


def find_uv() -> str:
    """The uv that the Makefile takes; `true` where there is none, as in conda's environment."""
    places = (Path.home() / ".local" / "bin" / "uv", ROOT / ".uv" / "bin" / "uv")
    return shutil.which("uv") or next((str(path) for path in places if path.is_file()), "true")


@contextmanager
def programs(folder: Path) -> Iterator[dict[str, str]]:
    """Programs in a folder, and the environment in which a shell takes these first."""
    socket = folder / "socket"
    known = {"python": sys.executable, "warm": warm.__file__, "socket": socket}
    known |= {"uv": find_uv(), "prefix": sys.prefix}
    for name, text in PROGRAMS.items():
        program = folder / name
        program.write_text("#!/bin/bash\nset -euo pipefail\n" + text.format(**known) + "\n")
        program.chmod(0o755)
    away = ("P2F_HOME", "MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in away}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {f"GIT_{who}_NAME": "A. Newcomer" for who in ("AUTHOR", "COMMITTER")}
    environment |= {f"GIT_{who}_EMAIL": "newcomer@example.org" for who in ("AUTHOR", "COMMITTER")}
    server = subprocess.Popen(
        [sys.executable, warm.__file__, socket],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout.readline() == "ready\n", "the server of tests/warm.py did not start"
        path = [str(folder), str(Path(sys.executable).parent), environment["PATH"]]
        yield environment | {"PATH": os.pathsep.join(path)}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


# --- files ----------------------------------------------------------------------------------------

WITH_CAMERA = """\
import sys

import cv2

from p2f_lib import cli

opened = cv2.VideoCapture
cv2.VideoCapture = lambda source: opened("clip.mp4" if source == 0 else source)
sys.exit(cli.main())
"""

FEW_VIEWS = """\
import sys
from itertools import count

from p2f_lib import cli, rerender

drawn, number = rerender.rerendered, count()
rerender.rerendered = lambda face, image, *more, **options: (
    image if next(number) % 10 else drawn(face, image, *more, **options)
)
sys.exit(cli.main())
"""

SMALL_ABLATION = """\
import sys

from p2f_lib import ablation, cli

small = ablation.Budget(n_train=16, n_test=4, epochs=1, canvas=64, supersample=1)
ablation.run_all = lambda model, _, photos: [
    ablation.run_one(model, name, 0, small, photos) for name in ("nothing", "hair")
]
sys.exit(cli.main())
"""


def furnish(folder: Path) -> None:
    """Put what the commands name beside a reader's photos: pictures, videos, data sets, scripts."""
    woman = bundled_picture("astronaut")[0:260, 100:360]
    man = cv2.resize(bundled_picture("grace_hopper"), None, fx=0.5, fy=0.5)
    pictures = {
        "photo.jpg": woman,
        "holiday/one.jpg": man,
        "her/1.jpg": woman,
        "her/2.jpg": woman[:, ::-1],
    }
    reconstructor = Reconstructor.from_pretrained(ROOT / "data" / "release", "cpu")
    for number, picture in enumerate((woman, man, woman[:, ::-1], man[:, ::-1])):
        image = np.ascontiguousarray(picture)
        for name in ("300W", "FOLDER"):
            pictures[f"{name}/{number}.jpg"] = image
            (folder / name).mkdir(parents=True, exist_ok=True)
            marks = reconstructor(image)[0].landmarks("ibug68")
            write_pts(folder / name / f"{number}.pts", marks)
    clip = menpo3d.read_clip(ROOT / "data" / "menpo3d_synthetic", "001").take(range(N_FRAMES))
    frames = list(clip)
    pictures |= {f"pictures/{k}.jpg": frame for k, frame in enumerate(frames)}
    for name in ("clip.mp4", "300VW/001/vid.avi", "300VW/002/vid.avi"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        film(folder / name, frames)
    large = cv2.resize(woman, (SIDE, SIDE))
    marks = np.pad(reconstructor(large)[0].landmarks("ibug68") + 1, ((0, 0), (0, 1))).T  # MATLAB's
    write_face(
        folder / "AFLW2000", "image00002", basel_toy(), (0, 0, 0), kind="aflw2000", pt3d_68=marks
    )
    pictures["AFLW2000/image00002.jpg"] = large
    for name, image in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, np.ascontiguousarray(image))
    (folder / "with_camera.py").write_text(WITH_CAMERA)
    (folder / "few_views.py").write_text(FEW_VIEWS)
    (folder / "small_ablation.py").write_text(SMALL_ABLATION)


def film(path: Path, frames: list[np.ndarray]) -> None:
    """A video in the container that its name says."""
    code = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), code, 25.0, (width, height))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()


def shrink(folder: Path) -> None:
    """Put what the commands name of the repository itself, in small: clips, recipes, weights."""
    clip = menpo3d.read_clip(ROOT / "data" / "menpo3d_synthetic", "001").take(range(N_FRAMES))
    menpo3d.write_clip(
        folder / "data" / "menpo3d_synthetic", "001", list(clip), clip.projected, clip.model
    )
    shutil.copytree(ROOT / "data" / "release", folder / "data" / "release")
    (folder / "build").mkdir()
    shutil.copy(ROOT / "build" / "face_model.safetensors", folder / "build")
    (folder / "params").mkdir()
    for path in (ROOT / "params").glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        batch = recipe["train"]["batch_size"]
        recipe["ground_truth"] |= {"n_train": 2 * batch, "n_heldout": 4, "canvas": 40}
        recipe["train"] |= {"epochs": 1, "threads": 1, "workers": 0}
        if path.stem != "release":  # whose network has to be that of the released weights
            recipe["train"] |= {"input_size": 16, "width": 4, "depth": 3}
        (folder / "params" / path.name).write_text(yaml.safe_dump(recipe))


def repository_files(*patterns: str) -> list[Path]:
    """Files of this repository that git knows or would take, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = {Path(name) for name in names.split("\0") if name}
    return sorted(path for path in paths if (ROOT / path).is_file())


def copy_repository(folder: Path) -> None:
    """These files, and the data and weights that DVC keeps."""
    for path in repository_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    for name in ("build", "data/release", "data/menpo3d_synthetic"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)


if __name__ == "__main__":
    furnish(Path(sys.argv[1]))
