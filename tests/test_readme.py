"""Every command block of README.md, CONTRIBUTING.md and docs/ runs as it stands.

A Python block runs as a file. A shell block runs command by command in bash. Both find what they
name in miniature: a portrait for photo.jpg, four frames for clip.mp4, recipes of a few pictures.
Commands that need what a test has not get a `Rule` that says what runs instead, and why.
"""

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import _SubParsersAction
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from p2f_lib.cli import make_parser
from tests import workplace
from tests.workplace import ROOT, repository_files

PAGES = [ROOT / path for path in repository_files("README.md", "CONTRIBUTING.md", "docs/*.md")]
REPOSITORY_TOOLS = {"make", "uv", "dvc", "conda", "git"}  # these run in a copy of the repository
DATA = {"text", "yaml", "json", "mermaid"}  # languages that nothing runs


# --- what the pages hold --------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block, the place where it begins, and what it says."""

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Those of a shell block, comments left out; what `&&` joins is apart."""
        lines = self.text.replace("\\\n", " ").splitlines()
        bare = [re.sub(r"(^|\s)#.*", "", line) for line in lines]
        return [one.strip() for line in bare for one in line.split("&&") if one.strip()]


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    fences = re.finditer(r"^( *)(`{3,})(.*)\n((?:.*\n)*?)\1\2 *$", text, re.M)
    return [
        Block(
            path.relative_to(ROOT).as_posix(),
            text[: fence.start()].count("\n") + 1,
            fence[3].strip(),
            re.sub(rf"^{fence[1]}", "", fence[4], flags=re.M),
        )
        for fence in fences
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def place(block: Block) -> str:
    return f"{block.page}:{block.line}"


# --- what is known of the commands ----------------------------------------------------------------


Run = Callable[[str], str]


def queued(command: str, run: Run) -> None:
    """The experiment that waits in DVC's queue has the parameters that the command sets."""
    parameters = yaml.safe_load(run("git show refs/exps/celery/stash:params.yaml"))
    run("dvc queue remove --all")
    settings = re.findall(r"-S '?\+?([\w.]+)=([^'\s]+)", command)
    assert settings
    for name, value in settings:
        found = parameters
        for part in name.split("."):
            found = found[part]
        assert found == yaml.safe_load(value), name


@dataclass(frozen=True)
class Rule:
    """What is known of a command beside that it ends well and writes its ``--out``.

    `makes` are patterns of files that it writes, `says` one of what it prints. `swap` replaces some
    of its words where the command itself can't run in a test, and `why` tells the reason. `before`
    is a command, `after` a check.
    """

    makes: tuple[str, ...] = ()
    says: str = ""
    swap: dict[str, str] = field(default_factory=dict)
    why: str = ""
    before: str = ""
    after: Callable[[str, Run], None] | None = None


TRACKED = ("tracks/*.csv", "*/projected_image_space/*.ljson", "*/projected_image_space/*.pts")

# By the words that a command begins with; of several the longest.
RULES = {
    "make env": Rule(),
    "make repro": Rule(
        says="dvc repro",
        swap={"make repro": "make -n repro && dvc repro --dry"},
        why="it may train for minutes",
    ),
    "make test": Rule(
        says="pytest -q .*tests", swap={"make": "make -n"}, why="it runs this very file"
    ),
    "make ablation": Rule(says="p2f ablation", swap={"make": "make -n"}, why="half an hour"),
    "uv sync": Rule(),
    "uv run dvc pull": Rule(("data/release/unet.safetensors",), before="rm -r data"),
    "uv run dvc repro": Rule(swap={"repro": "repro --dry"}, why="it may train for minutes"),
    "conda env create": Rule(),
    "conda activate": Rule(),
    "dvc pull": Rule(("data/release/unet.safetensors",), before="rm -r data"),
    "dvc repro": Rule(swap={"repro": "repro --dry"}, why="it may train for minutes"),
    "dvc exp run": Rule(
        swap={"exp run": "exp run --queue"}, why="it trains or needs licensed data", after=queued
    ),
    "dvc metrics diff": Rule(
        says="epochs", before="echo '{\"epochs\": 3}' > reports/metrics/train.json"
    ),
    "dvc plots diff": Rule(("dvc_plots/index.html",)),
    "dvc remote add": Rule(),
    "dvc push": Rule(
        ("elsewhere/files/md5/*",),
        swap={"dvc push": "dvc remote add --force --default big elsewhere && dvc push"},
        why="a bucket of somebody's own",
    ),
    "p2f reconstruct": Rule(
        ("*/photo.json", "*/photo.ply", "*/photo.glb", "*/photo.obj"), says=r"yaw -?\d"
    ),
    "p2f pose": Rule(says=r"yaw -?\d"),
    "p2f fit": Rule(("*/her.glb", "*/her.obj", "*/her.json"), says="2 photos -> "),
    "p2f evaluate": Rule(says=r"51 inner points: mean [0-2]\.\d"),  # of the network's own landmarks
    "p2f evaluate-aflw2000": Rule(says=r"this run +\d"),
    "p2f evaluate-tracking": Rule(("reports/tracking.csv",)),
    "p2f choose-landmarks": Rule(says="after"),
    "p2f render": Rule(("*.png",), says=r"\d+ pictures? -> "),
    "p2f views": Rule(
        swap={"p2f": "python few_views.py"}, why="half a minute; draws every tenth of its pictures"
    ),
    "p2f track": Rule(TRACKED),
    "p2f track 0": Rule(
        TRACKED, swap={"p2f": "python with_camera.py"}, why="its camera is a file here"
    ),
    "p2f track 300VW/*/vid.avi": Rule(("mine/*.csv", "mine/projected_image_space/*.ljson")),
    "p2f train": Rule(("*/unet.safetensors",)),
    "p2f ablation": Rule(
        ("*.csv", "*.png"), swap={"p2f": "python small_ablation.py"}, why="half an hour"
    ),
    "torchrun": Rule(("*/unet.safetensors",)),
    "srun p2f train": Rule(("*/unet.safetensors",)),
    "python -m p2f_lib.datasets.clips": Rule(
        ("data/menpo3d_synthetic/final_published/*.ljson",),
        swap={"--out": "--clips 1 --frames 2 --out"},
        why="minutes",
    ),
}

# What Python blocks take for granted: the code that makes it. Later ones may use earlier ones.
GIVEN = {
    "reconstructor": """from p2f_lib import Reconstructor
reconstructor = Reconstructor.from_pretrained()""",
    "faces": """from p2f_lib import read_image
faces = [reconstructor(read_image(f"her/{number}.jpg"))[0] for number in (1, 2)]""",
}


def rule_of(command: str) -> str | None:
    """The longest key of `RULES` that begins a command."""
    words = command.split()
    keys = [key for key in RULES if words[: len(key.split())] == key.split()]
    return max(keys, key=len, default=None)


def completed(block: Block) -> str:
    """A Python block with the code before it that makes what it takes for granted."""
    text = block.text
    while missing := undefined(text):
        unknown = missing - GIVEN.keys()
        assert not unknown, (
            f"{place(block)} uses {', '.join(sorted(unknown))}, which it doesn't make. Make it in "
            "the block, or add to GIVEN in tests/test_readme.py the code that makes it."
        )
        text = "\n".join([*(GIVEN[name] for name in sorted(missing)), text])
    return text


def undefined(text: str) -> set[str]:
    """Names that a piece of Python uses before it makes them."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    found = subprocess.run(command, input=text, capture_output=True, text=True)
    assert "invalid-syntax" not in found.stdout, found.stdout
    return set(re.findall(r"Undefined name `(\w+)`", found.stdout))


# --- where they run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with workplace.programs(tmp_path_factory.mktemp("bin")) as variables:
        yield variables


@pytest.fixture(scope="module")
def run(environment):
    """Run a command of bash in a folder and return what it prints, or fail with that."""

    def bash(command: str, folder: Path) -> str:
        __tracebackhide__ = True
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout}"
        return done.stdout

    return bash


@pytest.fixture(scope="module")
def furniture(run, tmp_path_factory):
    """A reader's photos and videos; never changed."""
    folder = tmp_path_factory.mktemp("furniture")
    run(f"python -m tests.workplace {folder}", ROOT)
    return folder


@pytest.fixture(scope="module")
def model_desk(furniture, tmp_path_factory):
    """These, and the repository's data in small; never changed."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(furniture, folder, dirs_exist_ok=True)
    workplace.shrink(folder)
    return folder


@pytest.fixture
def desk(model_desk, tmp_path):
    """A copy of them for one block."""
    return shutil.copytree(model_desk, tmp_path / "desk")


@pytest.fixture(scope="module")
def repository(run, furniture, tmp_path_factory):
    """A copy of the repository with its data, and a reader's photos that git ignores."""
    folder = tmp_path_factory.mktemp("repository")
    workplace.copy_repository(folder)
    run("git init -q && git add . && git commit -qm all", folder)
    ignored = "".join(f"/{path.name}\n" for path in furniture.iterdir())
    (folder / ".git" / "info" / "exclude").write_text(ignored)
    shutil.copytree(furniture, folder, dirs_exist_ok=True)
    run("dvc pull --quiet || true", folder)  # fails where a stage ran and nobody pushed
    return folder


@pytest.fixture
def checkout(repository, run):
    """The same for one block, as it was before."""
    yield repository
    run("git reset -q --hard", repository)


def written(folder: Path) -> dict[str, int]:
    """Every file outside hidden folders, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = ((path, path.relative_to(folder).as_posix()) for path in files)
    return {name: path.stat().st_mtime_ns for path, name in names if not name.startswith(".")}


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PYTHON, ids=place)
def test_python_block_runs(block, run, desk):
    text = completed(block)
    (desk / "block.py").write_text(text)
    before = written(desk)
    run("python block.py", desk)
    new = {name for name, time in written(desk).items() if before.get(name) != time}
    for name in re.findall(r'"([\w/]+\.(?:glb|obj|ply|json|png|jpg|csv))"', block.text):
        assert name in new or (desk / name).exists(), f"{place(block)} writes no {name}"
    if "face_{number}.glb" in block.text:
        assert "face_0.glb" in new


@pytest.mark.parametrize("block", SHELL, ids=place)
def test_shell_block_runs(block, request, run):
    unknown = [command for command in block.commands if rule_of(command) is None]
    assert not unknown, (
        f"Nobody knows what to expect of `{unknown[0]}` ({place(block)}). Add a rule for it to "
        "RULES in tests/test_readme.py: the files that it writes, what it says, or what runs in "
        "its place."
    )
    tools = {command.split()[0] for command in block.commands}
    folder = request.getfixturevalue("checkout" if tools & REPOSITORY_TOOLS else "desk")
    for command in block.commands:
        execute(command, RULES[rule_of(command)], folder, run)


def execute(command: str, rule: Rule, folder: Path, run: Callable[[str, Path], str]) -> None:
    """Run a command by its rule, and look for what it and the rule promise."""
    __tracebackhide__ = True
    changed = command
    for old, new in rule.swap.items():
        assert old in changed, f"`{command}` has no {old!r}, which its rule replaces"
        changed = changed.replace(old, new, 1)
    if rule.before:
        run(rule.before, folder)
    before = written(folder)
    said = run(changed, folder)
    new = [name for name, time in written(folder).items() if before.get(name) != time]
    for pattern in rule.makes:
        assert fnmatch.filter(new, pattern), f"{command} wrote no {pattern}, but {sorted(new)}"
    for name in re.findall(r"--(?:out|figure) (\S+)", command):
        name = name.rstrip("/")
        inside = [path for path in new if path == name or path.startswith(f"{name}/")]
        assert inside, f"{command} wrote nothing to {name}"
    assert re.search(rule.says, said), f"{command} said\n{said}"
    if rule.after is not None:
        rule.after(command, lambda other: run(other, folder))


def test_no_rule_is_left_over():
    used = {rule_of(command) for block in SHELL for command in block.commands}
    assert not RULES.keys() - used, "no page has these commands; remove their rules"
    texts = [block.text for block in PYTHON]
    for name in GIVEN:
        assert any(re.search(rf"\b{name}\b", text) for text in texts), f"no block needs {name}"
    for name, rule in RULES.items():
        assert bool(rule.swap) == bool(rule.why), f"{name}: a swap needs a reason"


def test_blocks_of_other_languages_are_known():
    for block in BLOCKS:
        known = {"bash", "python", "bibtex", ""} | DATA
        assert block.language in known or block.language.startswith("{"), (
            f"{place(block)} is in {block.language}; write bash or python, which are run, or one "
            f"of {', '.join(sorted(DATA))}, which are not."
        )


def test_the_map_names_what_is_there():
    (tree,) = (block for block in BLOCKS if block.language == "")
    for line in tree.text.splitlines():
        name = line.split()[0]
        assert (ROOT / name).exists(), f"{place(tree)}: there is no {name}"


def test_the_citation_is_that_of_citation_cff():
    (entry,) = (block.text for block in BLOCKS if block.language == "bibtex")
    fields = dict(re.findall(r"^\s*(\w+) = \{(.*)\},?$", entry, re.M))
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"][0]
    assert fields["title"].replace("{", "").replace("}", "") == paper["title"]
    authors = [f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]]
    assert fields["author"] == " and ".join(authors)
    assert fields["booktitle"] in paper["collection-title"]
    assert fields["year"] == str(paper["year"])
    assert fields["pages"] == f"{paper['start']}--{paper['end']}"


# --- commands within sentences --------------------------------------------------------------------


def inline(path: Path) -> list[str]:
    """What stands between single backquotes outside fenced blocks, in one line each."""
    text = re.sub(r"^( *)```.*\n(?:.*\n)*?\1``` *$", "", path.read_text(), flags=re.M)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_sentences_exist(page):
    (choices,) = (a.choices for a in make_parser()._actions if isinstance(a, _SubParsersAction))
    options = {name: set(one._option_string_actions) for name, one in choices.items()}
    everywhere = set().union(*options.values())
    makefile = (ROOT / "Makefile").read_text()
    for code in inline(page):
        words = code.split()
        named = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        if words[0] == "p2f" and words[1:] and words[1][0].islower():
            assert words[1] in options, f"{code}: there is no command {words[1]}"
            assert named <= options[words[1]], f"{code}: p2f {words[1]} has no such option"
        elif words[0] == "make" and len(words) > 1:
            assert re.search(rf"^{words[1]}:", makefile, re.M), f"{code}: no such target"
            for variable in re.findall(r"\b([A-Z]+)=", code):
                assert f"$({variable})" in makefile, f"{code}: {variable} means nothing"
        elif words[0].startswith("--"):
            assert named <= everywhere, f"{code}: no command of p2f has this option"


# --- pages that are served ------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "path"), [("lab", "lab"), ("app", "")])
def test_pages_are_served(target, path, environment, checkout, tmp_path):
    """`make lab` and `make app` as they stand; files say on which port, and open no browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = {"port": port, "open_browser": False}
    settings = {"ServerApp": server | {"allow_root": True, "token": ""}, "Voila": server}
    for name in ("jupyter_server_config.json", "voila.json"):
        (tmp_path / name).write_text(json.dumps(settings))
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path) for name in ("CONFIG", "RUNTIME")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["make", target],
            cwd=checkout,
            env=environment | folders,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert answers(f"http://127.0.0.1:{port}/{path}", process), (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(url: str, process: subprocess.Popen) -> bool:
    """Whether a page comes within two minutes, while the process that serves it lives."""
    for _ in range(240):
        try:
            return urllib.request.urlopen(url, timeout=60).status == 200
        except urllib.error.HTTPError:
            return False
        except OSError:
            if process.poll() is not None:
                return False
            time.sleep(0.5)
    return False
