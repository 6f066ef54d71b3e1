"""dvc.yaml, params.yaml, environment.yml and the notebooks agree with each other and the code."""

import ast
import json
import re
import runpy
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from packaging.requirements import Requirement

import p2f_lib

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = {name: stage for name, stage in PIPELINE["stages"].items() if name != "source"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAPERMILL = re.compile(r"\$\{papermill\} build/source/(\w+)\.ipynb reports/(\w+)\.ipynb")


def notebook_of(stage):
    return ROOT / "notebooks" / f"{PAPERMILL.fullmatch(stage['cmd'])[1]}.ipynb"


def code_of(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def names(entries):
    """Paths of a list whose entries are paths or ``{path: options}``."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def imported_modules(source):
    """Dotted names of p2f_lib that a piece of Python imports when it runs, at any depth."""
    tree = ast.parse(source)
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name imported from a package may be a module or something defined in it.
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found |= {name.rpartition(".")[0] for name in found}  # a package runs before its modules
    return {name for name in found if name.startswith("p2f_lib.")}


def files_used(sources):
    """Files of p2f_lib that pieces of Python use, directly or through another module."""
    # The package hands these on from its modules, on first use.
    homes = {f"p2f_lib.{name}": f"p2f_lib.{home}" for name, home in p2f_lib._HOMES.items()}
    todo, seen, files = list(sources), set(), set()
    while todo:
        for name in {homes.get(name, name) for name in imported_modules(todo.pop())} - seen:
            seen.add(name)
            module = ROOT / name.replace(".", "/")
            for path in (module.with_suffix(".py"), module / "__init__.py"):
                if path.exists():
                    files.add(path.relative_to(ROOT).as_posix())
                    todo.append(path.read_text())
    return files


def covers(dep, path):
    return path == dep or path.startswith(f"{dep}/")


@pytest.mark.parametrize("name", STAGES)
def test_stage_runs_its_notebook_under_the_same_name(name):
    command = PAPERMILL.fullmatch(STAGES[name]["cmd"])
    assert command, STAGES[name]["cmd"]
    assert command[1] == command[2]
    assert f"build/source/{command[1]}.ipynb" in names(PIPELINE["stages"]["source"]["outs"])
    assert f"build/source/{command[1]}.ipynb" in STAGES[name]["deps"]
    assert {f"reports/{command[1]}.ipynb": {"cache": False}} in STAGES[name]["outs"]


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_parameters_of_its_notebook(name):
    used = set(papermill.inspect_notebook(str(notebook_of(STAGES[name])))) & set(PARAMS)
    assert used == set(STAGES[name]["params"])


@pytest.mark.parametrize("name", STAGES)
def test_notebook_defaults_have_the_entries_of_params_yaml(name):
    """Notebooks run at smoke scale with the same entries, or a stage would miss some."""
    for parameter, value in papermill.inspect_notebook(str(notebook_of(STAGES[name]))).items():
        if isinstance(PARAMS.get(parameter), dict):
            default = ast.literal_eval(value["default"])
            assert set(default) == set(PARAMS[parameter]), parameter


@pytest.mark.parametrize("name", STAGES)
def test_stage_depends_on_the_modules_its_notebook_uses(name):
    deps = STAGES[name]["deps"]
    used = files_used(code_of(notebook_of(STAGES[name])))
    missing = {path for path in used if not any(covers(dep, path) for dep in deps)}
    assert not missing, f"add to the stage's deps: {sorted(missing)}"
    library = [dep for dep in deps if dep.startswith("p2f_lib/")]
    unused = {dep for dep in library if not any(covers(dep, path) for path in used)}
    assert not unused, f"not used, so it reruns the stage for nothing: {sorted(unused)}"


def test_dependencies_exist_or_are_made_by_an_earlier_stage():
    made = set(names(PIPELINE["stages"]["source"]["outs"]))
    tracked = [out["path"] for out in yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]]
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            known = dep in made or dep.split("/")[0] in tracked or (ROOT / dep).exists()
            assert known, f"{name}: {dep}"
        made |= set(names(stage["outs"]))


def test_sources_are_the_notebooks_of_the_stages():
    run, source = [notebook_of(stage) for stage in STAGES.values()], PIPELINE["stages"]["source"]
    assert source["deps"] == [f"notebooks/{path.name}" for path in run]
    assert source["outs"] == [f"build/source/{path.name}" for path in run]
    assert set(run) <= set(NOTEBOOKS)


def test_outputs_lie_in_reports_under_git_or_in_build_under_dvc():
    for stage in STAGES.values():
        for out in stage["outs"]:
            path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
            assert path.startswith("build/" if options.get("cache", True) else "reports/"), path


def test_metrics_and_plots_are_outputs():
    made = [path for stage in STAGES.values() for path in names(stage["outs"])]
    for path in names(PIPELINE["metrics"] + PIPELINE["plots"]):
        assert any(covers(out, path) for out in made), path


def entries(tree):
    """The keys of nested mappings, values left out."""
    if not isinstance(tree, dict):
        return None
    return {key: entries(value) for key, value in tree.items()}


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_parameter_sets_have_the_same_entries(path):
    assert entries(yaml.safe_load(path.read_text())) == entries(PARAMS)


def test_every_parameter_says_where_it_comes_from():
    for path in [ROOT / "params.yaml", *(ROOT / "params").glob("*.yaml")]:
        for line in path.read_text().splitlines():
            if re.match(r" *\w+: \S", line):
                assert re.search(r"  # \((paper|ours|authors' code)\b[^)]*\)", line), line


def test_environment_yml_is_written_from_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    generator = runpy.run_path(str(ROOT / "tools" / "environment.py"))
    text = (ROOT / "environment.yml").read_text()
    assert text == generator["environment"](project), "run python tools/environment.py"
    conda = yaml.safe_load(text)["dependencies"]
    specs = [spec for spec in conda if isinstance(spec, str)]
    specs += [spec for spec in conda[-1]["pip"] if not spec.startswith("--")]
    parsed = {Requirement(spec).name for spec in specs}
    assert len(parsed) == len(specs)
    declared = project["project"]["dependencies"] + [
        spec for group in project["dependency-groups"].values() for spec in group
    ]
    assert len(specs) == len(declared) + 2  # and python, pip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_holds_no_traces_of_a_run(self, path):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        for cell in notebook.cells:
            assert set(cell.metadata) <= {"tags"}, cell.id

    def test_outputs_are_stored_and_small(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert cell.execution_count, f"{cell.id} isn't executed: make notebooks"
                for output in cell.outputs:
                    assert len(json.dumps(output)) < 200_000, cell.id

    def test_cells_are_short_and_define_nothing(self, path):
        for source in code_of(path):
            assert len(source.splitlines()) <= 15, source
            assert not re.search(r"^\s*(def|class|async def)\s", source, re.MULTILINE), source
