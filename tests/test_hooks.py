"""The checks before a commit, in a scratch copy of the repository: what passes, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not in a git checkout"
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The tracked files as they are now, in a repository of their own, with this environment."""
    root = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file() and not name.startswith(".dvc/store/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    if (ROOT / ".uv").exists():
        (root / ".uv").symlink_to(ROOT / ".uv")
    (root / ".git").mkdir()
    git(root, "init", "--quiet")
    (root / ".git/info/exclude").write_text(".venv\n.uv\n")
    git(root, "add", "--all", ".")
    return root


def git(root, *arguments):
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def hooks(root, *arguments):
    """Status and output of pre-commit; nothing of it needs the network."""
    command = [sys.executable, "-m", "pre_commit", "run", "--color=never", *arguments]
    environment = os.environ | {
        "PRE_COMMIT_HOME": str(root / ".git/pre-commit"),
        "UV_OFFLINE": "1",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def refused(root, name, hook):
    """What a hook says of a new or changed file, which is put back afterwards."""
    git(root, "add", "--force", name)
    status, said = hooks(root, hook, "--files", name)
    assert status == 1, said
    return said


def test_everything_passes(copy):
    status, said = hooks(copy, "--all-files")
    assert status == 0, said
    assert said.count("Passed") == 6, said


def test_an_untidy_notebook_is_mended_and_refused(copy):
    path = copy / "notebooks/01_face_model.ipynb"
    before = path.read_text()
    notebook = json.loads(before)
    notebook["metadata"]["widgets"] = {}
    notebook["cells"][0]["metadata"]["scrolled"] = True
    path.write_text(json.dumps(notebook))
    said = refused(copy, "notebooks/01_face_model.ipynb", "notebooks")
    assert "notebooks/01_face_model.ipynb was not tidy: its metadata hold more" in said
    assert "cell 1 has the metadata scrolled" in said
    assert path.read_text() == before


def test_a_huge_file_is_refused_except_where_such_files_belong(copy):
    (copy / "weights.bin").write_bytes(bytes(1_000_001))
    said = refused(copy, "weights.bin", "large-files")
    assert "weights.bin has 1.0 MB, and at most 1 MB are allowed in git" in said
    (copy / "weights.bin").write_bytes(bytes(1_000_000))
    git(copy, "add", "weights.bin")
    assert hooks(copy, "large-files", "--files", "weights.bin")[0] == 0
    (copy / "reports/large.html").write_bytes(bytes(1_000_001))
    git(copy, "add", "reports/large.html")
    assert hooks(copy, "large-files", "--files", "reports/large.html")[0] == 0


def test_a_new_dependency_renews_environment_yml(copy):
    path = copy / "pyproject.toml"
    path.write_text(path.read_text().replace('"pytest>=8.4"', '"pytest>=8.5"'))
    said = refused(copy, "pyproject.toml", "environment")
    assert "files were modified by this hook" in said
    assert "pytest>=8.5" in (copy / "environment.yml").read_text()


def test_unformatted_code_is_mended_and_refused(copy):
    path = copy / "tools/untidy.py"
    path.write_text("import os\nx = 'a'\n")
    refused(copy, "tools/untidy.py", "ruff-check")
    refused(copy, "tools/untidy.py", "ruff-format")
    assert path.read_text() == 'x = "a"\n'
