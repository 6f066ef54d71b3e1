"""Notebooks as pipeline stages: the same inputs give the same bytes.

``papermill --engine p2f`` runs a notebook through :class:`StableEngine`, which differs from
papermill's own engine in what it leaves behind: no times, no random cell ids, no progress bars,
and only those parameters that the notebook declares. Three commands belong to it::

    python -m p2f_lib.notebook_engine strip NOTEBOOK... DIR  # copies without outputs, for stages
    python -m p2f_lib.notebook_engine refresh NOTEBOOK...    # execute in place, store clean outputs
    python -m p2f_lib.notebook_engine tidy NOTEBOOK...       # drop what differs between two runs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

# Kernels get these unless the caller set others: sums over another number of threads round
# differently, and sets of strings are ordered by their hash. PyTorch's threads are a parameter.
STABLE_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on a GPU
    "TQDM_MININTERVAL": "5",  # every tick of a bar would be a line of the log
}

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Streams are merged, as their number varies; the kernel's own messages are noise.
_CLIENT: dict[str, Any] = {"coalesce_streams": True, "extra_arguments": ["--log-level=CRITICAL"]}
_WIDGET = "application/vnd.jupyter.widget-view+json"


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Drop what differs between two runs of the same code.

    Metadata keeps the kernel's name and the cells' tags. Outputs lose stderr (progress bars,
    warnings: they belong to the log) and widgets, whose state isn't stored.

    Parameters
    ----------
    notebook : NotebookNode
        Changed in place.

    Returns
    -------
    NotebookNode
        The same notebook.
    """
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_stable(output)]
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})
    return notebook


def untidy(notebook: NotebookNode) -> list[str]:
    """What `tidy` would drop, each in a few words; nothing for a tidy notebook."""
    found = []
    if notebook.metadata != _METADATA:
        found.append("its metadata hold more than the kernel's name")
    for number, cell in enumerate(notebook.cells, start=1):
        if extra := sorted(set(cell.metadata) - {"tags"}):
            found.append(f"cell {number} has the metadata {', '.join(extra)}")
        for output in cell.get("outputs", []):
            if not _is_stable(output):
                kind = "a widget" if "data" in output else "messages (stderr)"
                found.append(f"cell {number} has {kind} among its outputs")
            elif output.get("metadata"):
                found.append(f"cell {number} has an output with metadata")
    return found


def strip(notebook: NotebookNode) -> NotebookNode:
    """Reduce a notebook to what decides its result: sources, tags and the kernel's name.

    Executing, saving or opening the notebook doesn't change the copy, so a stage that depends
    on it reruns only after its text or code was edited.

    Parameters
    ----------
    notebook : NotebookNode
        Changed in place.

    Returns
    -------
    NotebookNode
        The same notebook.
    """
    tidy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return _number_cells(notebook)


def refresh(path: str | Path) -> None:
    """Execute a notebook in place, with the parameters written in it, and store clean outputs.

    Parameters
    ----------
    path : path
        The notebook; its kernel runs in its folder.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed; the file is left as it was.
    """
    from nbclient import NotebookClient

    path = Path(path)
    notebook = _read(path)
    _pin_environment()
    client = NotebookClient(
        notebook,
        kernel_name=_METADATA["kernelspec"]["name"],
        resources={"metadata": {"path": str(path.parent)}},
        **_CLIENT,
    )
    try:
        client.execute()
    except Exception as error:
        error.add_note(f"{path} failed and was left as it was.")
        raise
    nbformat.write(tidy(notebook), path)


class StableEngine:
    """Papermill's notebook engine with byte-stable results; entry point ``p2f``.

    It wraps the engine instead of inheriting from it: papermill loads this module while it is
    being imported itself.
    """

    @classmethod
    def execute_notebook(
        cls, nb: NotebookNode, kernel_name: str, output_path: str | None = None, **options: Any
    ) -> NotebookNode:
        """Run the notebook; papermill writes what is returned.

        Parameters
        ----------
        nb : NotebookNode
            The notebook with its parameters injected.
        kernel_name : str
            Jupyter kernel to run it in.
        output_path : str, optional
            Where papermill saves it after every cell.
        **options
            Passed on to papermill's engine.

        Returns
        -------
        NotebookNode
            The executed notebook, tidied.

        Raises
        ------
        papermill.exceptions.PapermillExecutionError
            A cell failed. The notebook is kept at `output_path`, the error says so.
        """
        from papermill.engines import NBClientEngine
        from papermill.execute import raise_for_execution_errors

        _pin_environment()
        nb = _keep_declared_parameters(nb)
        try:
            nb = NBClientEngine.execute_notebook(
                nb, kernel_name, output_path=output_path, **_CLIENT, **options
            )
            raise_for_execution_errors(nb, output_path)
        except Exception as error:
            if output_path:
                error.add_note(f"The notebook as far as it ran: {output_path}")
            raise
        return _number_cells(tidy(nb))

    @classmethod
    def nb_kernel_name(cls, nb: NotebookNode, name: str | None = None) -> str:
        """Name of the kernel, from the command line or the notebook."""
        from papermill.utils import nb_kernel_name

        return nb_kernel_name(nb, name)

    @classmethod
    def nb_language(cls, nb: NotebookNode, language: str | None = None) -> str:
        """Language of the notebook."""
        from papermill.utils import nb_language

        return nb_language(nb, language)


def _is_stable(output: NotebookNode) -> bool:
    return output.get("name") != "stderr" and _WIDGET not in output.get("data", {})


def _number_cells(notebook: NotebookNode) -> NotebookNode:
    """Cell ids by position: papermill gives the injected cell a random one."""
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
    return notebook


def _keep_declared_parameters(notebook: NotebookNode) -> NotebookNode:
    """Inject only the parameters that the notebook has.

    ``papermill -f params.yaml`` injects the parameters of every stage, and the executed notebook
    would change with those it never reads.
    """
    from papermill import inspect_notebook
    from papermill.parameterize import parameterize_notebook

    given = notebook.metadata.papermill.get("parameters")
    if not given:
        return notebook
    declared = inspect_notebook(notebook)
    return parameterize_notebook(notebook, {k: v for k, v in given.items() if k in declared})


def _pin_environment() -> None:
    for name, value in STABLE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _read(path: str | Path) -> NotebookNode:
    """Read a notebook; older formats come up to the one that has cell ids."""
    return nbformat.v4.upgrade(nbformat.read(path, as_version=4))


def _tidied(path: Path) -> bool:
    """Whether a notebook was tidy; else it is now, and what was wrong has been said."""
    try:
        notebook = _read(path)
    except (ValueError, nbformat.ValidationError) as error:
        print(f"{path} is no notebook: {str(error).splitlines()[0]}.")
        return False
    found = untidy(notebook)
    if found:
        nbformat.write(tidy(notebook), path)
        print(f"{path} was not tidy: {'; '.join(found)}. That is dropped now; add it once more.")
    return not found


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``strip``, ``refresh`` and ``tidy``, whose status is 1 if one wasn't."""
    parser = argparse.ArgumentParser(prog="python -m p2f_lib.notebook_engine")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("strip", help="write output-free copies")
    command.add_argument("notebooks", type=Path, nargs="+", metavar="notebook")
    command.add_argument("folder", type=Path, help="for the copies")
    command = commands.add_parser("refresh", help="execute in place and store clean outputs")
    command.add_argument("notebooks", type=Path, nargs="+", metavar="notebook")
    command = commands.add_parser("tidy", help="drop metadata and outputs that differ between runs")
    command.add_argument("notebooks", type=Path, nargs="+", metavar="notebook")
    options = parser.parse_args(arguments)

    if options.command == "strip":
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in options.notebooks:
            nbformat.write(strip(_read(path)), options.folder / path.name)
    elif options.command == "refresh":
        for path in options.notebooks:
            print(f"{path} ...", flush=True)
            refresh(path)
    else:
        tidy_before = [_tidied(path) for path in options.notebooks]
        return 0 if all(tidy_before) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
