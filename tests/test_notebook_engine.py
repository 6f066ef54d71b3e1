"""The papermill engine: same bytes twice, failures that are found, copies that stay the same."""

import nbformat
import papermill
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from p2f_lib.notebook_engine import main, refresh, strip, tidy


def write_notebook(path, *sources):
    """A notebook whose first cell holds its parameters."""
    cells = [new_code_cell("rate = 1.0", metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"display_name": "Any", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def run(source, result, parameters=None):
    papermill.execute_notebook(
        source,
        result,
        parameters=parameters,
        engine_name="p2f",
        kernel_name="python3",
        progress_bar=False,
    )
    return nbformat.read(result, as_version=4)


def code_text(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


def test_two_runs_give_the_same_bytes(tmp_path):
    source = write_notebook(
        tmp_path / "in.ipynb",
        "import sys, time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.05)",
        "print(time.time(), file=sys.stderr)\nprint(rate, {'a', 'b', 'c'})",
        "import os; os.environ['OMP_NUM_THREADS']",
    )
    # Another group's parameter must leave no trace.
    first = run(source, tmp_path / "1.ipynb", {"rate": 0.5, "unknown": 1})
    run(source, tmp_path / "2.ipynb", {"rate": 0.5, "unknown": 2})
    assert (tmp_path / "1.ipynb").read_bytes() == (tmp_path / "2.ipynb").read_bytes()
    nbformat.validate(first)
    assert "rate = 0.5" in code_text(first)
    assert "unknown" not in code_text(first)
    assert [output.text for output in first.cells[2].outputs] == ["0\n1\n2\n"]
    assert [output.name for output in first.cells[3].outputs] == ["stdout"]
    assert first.cells[4].outputs[0].data["text/plain"].strip("'").isdigit()


def test_failing_cell_raises_and_keeps_the_notebook(tmp_path):
    source = write_notebook(tmp_path / "in.ipynb", "print('before')", "1 / 0", "print('after')")
    result = tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError") as caught:
        run(source, result)
    assert any(str(result) in note for note in caught.value.__notes__)
    kept = nbformat.read(result, as_version=4)
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert [output.get("text", output.get("ename")) for output in outputs] == [
        "before\n",
        "ZeroDivisionError",
    ]


def test_dead_kernel_raises_and_keeps_the_notebook(tmp_path):
    source = write_notebook(tmp_path / "in.ipynb", "print('before')", "import os; os._exit(1)")
    result = tmp_path / "out.ipynb"
    with pytest.raises(Exception, match=r"[Kk]ernel died") as caught:
        run(source, result)
    assert any(str(result) in note for note in caught.value.__notes__)
    assert "before" in result.read_text()


def test_strip_does_not_depend_on_execution(tmp_path):
    path = write_notebook(tmp_path / "notebook.ipynb", "print(rate)", "rate")
    main(["strip", str(path), str(tmp_path / "before")])
    refresh(path)
    main(["strip", str(path), str(tmp_path / "after")])
    before, after = (tmp_path / name / path.name for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
    copy = nbformat.read(before, as_version=4)
    nbformat.validate(copy)
    assert copy.cells[0].metadata == {"tags": ["parameters"]}
    assert all(cell.outputs == [] and cell.execution_count is None for cell in copy.cells)


def test_refresh_stores_outputs_and_keeps_ids(tmp_path):
    path = write_notebook(tmp_path / "notebook.ipynb", "print(rate)")
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    refresh(path)
    first = path.read_bytes()
    refresh(path)
    assert path.read_bytes() == first
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[1].outputs[0].text == "1.0\n"
    assert notebook.cells[1].execution_count == 2
    assert [cell.id for cell in notebook.cells] == ids


def test_refresh_leaves_a_failing_notebook_as_it_was(tmp_path):
    path = write_notebook(tmp_path / "notebook.ipynb", "raise ValueError('no')")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError) as caught:
        refresh(path)
    assert path.read_bytes() == before
    assert any(str(path) in note for note in caught.value.__notes__)


def test_tidy_drops_what_changes_between_runs():
    widget = {"text/plain": "0%", "application/vnd.jupyter.widget-view+json": {"model_id": "4f"}}
    cell = new_code_cell(
        "x",
        metadata={"tags": ["keep"], "execution": {"iopub.execute_input": "now"}, "scrolled": True},
        outputs=[
            nbformat.v4.new_output("display_data", data=widget),
            nbformat.v4.new_output("stream", name="stderr", text="10%"),
            nbformat.v4.new_output("display_data", data={"text/plain": "1"}, metadata={"m": 1}),
        ],
    )
    notebook = new_notebook(
        cells=[new_markdown_cell("text", metadata={"editable": False}), cell],
        metadata={"widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}},
    )
    tidy(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert [dict(cell.metadata) for cell in notebook.cells] == [{}, {"tags": ["keep"]}]
    assert [output.data for output in cell.outputs] == [{"text/plain": "1"}]
    assert cell.outputs[0].metadata == {}


def test_strip_numbers_cells_by_position():
    notebook = strip(new_notebook(cells=[new_markdown_cell("a"), new_code_cell("b")]))
    assert [cell.id for cell in notebook.cells] == ["cell-0", "cell-1"]


def test_the_tidy_command_says_what_it_mends_once(tmp_path, capsys):
    path = write_notebook(tmp_path / "notebook.ipynb", "print(rate)")
    assert main(["tidy", str(path)]) == 1  # its kernel has another name
    assert capsys.readouterr().out == (
        f"{path} was not tidy: its metadata hold more than the kernel's name. "
        "That is dropped now; add it once more.\n"
    )
    before = path.read_bytes()
    assert main(["tidy", str(path)]) == 0
    assert path.read_bytes() == before
    assert capsys.readouterr().out == ""


def test_the_tidy_command_names_cells_and_leaves_their_results(tmp_path, capsys):
    path = write_notebook(tmp_path / "notebook.ipynb", "print(rate)")
    main(["tidy", str(path)])
    notebook = nbformat.read(path, as_version=4)
    cell = notebook.cells[1]
    cell.metadata["execution"] = {"iopub.execute_input": "now"}
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "4f"}}
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="1.0\n"),
        nbformat.v4.new_output("stream", name="stderr", text="10%"),
        nbformat.v4.new_output("display_data", data=widget),
    ]
    nbformat.write(notebook, path)
    capsys.readouterr()
    assert main(["tidy", str(path)]) == 1
    said = capsys.readouterr().out
    assert "cell 2 has the metadata execution" in said
    assert "cell 2 has messages (stderr) among its outputs" in said
    assert "cell 2 has a widget among its outputs" in said
    assert [output.text for output in nbformat.read(path, as_version=4).cells[1].outputs] == [
        "1.0\n"
    ]


@pytest.mark.parametrize("text", ["no JSON", '{"a": 1}'])
def test_the_tidy_command_leaves_what_is_no_notebook(text, tmp_path, capsys):
    path = tmp_path / "notebook.ipynb"
    path.write_text(text)
    assert main(["tidy", str(path)]) == 1
    assert f"{path} is no notebook" in capsys.readouterr().out
    assert path.read_text() == text
