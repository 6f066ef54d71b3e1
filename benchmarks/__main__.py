"""Run the benchmarks: ``python -m benchmarks [MODULE...]`` prints a table and writes the report."""

import argparse
import csv
import importlib
import pkgutil
from pathlib import Path

import benchmarks
from benchmarks import Row

REPORT = Path(__file__).resolve().parents[1] / "reports" / "benchmarks.csv"
COLUMNS = ("name", "value", "unit", "reference", "ratio", "note")


def cells(row: Row) -> list[str]:
    """The columns of one row as text, four significant digits."""
    numbers = {name: getattr(row, name) for name in ("value", "reference", "ratio")}
    text = {name: "" if n is None else f"{n:.4g}" for name, n in numbers.items()}
    return [text.get(name, getattr(row, name)) for name in COLUMNS]


def modules() -> list[str]:
    """Names of the benchmark modules."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def write(rows: list[Row], path: Path) -> None:
    """Write rows to a CSV file.

    Parameters
    ----------
    rows : list of Row
        With unique names.
    path : Path
        The file; its folder is made.

    Raises
    ------
    ValueError
        Two rows have the same name.
    """
    names = [row.name for row in rows]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Benchmark rows need unique names; repeated: {', '.join(repeated)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(cells, rows)])


def main(arguments: list[str] | None = None) -> None:
    """Run all benchmarks, or only those of the named modules, which then aren't written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(modules()))
    chosen = parser.parse_args(arguments).modules
    if unknown := sorted(set(chosen) - set(modules())):
        parser.error(f"no benchmark module {', '.join(unknown)}; there are {', '.join(modules())}")

    layout = "{:<36} {:>10} {:<10} {:>10} {:>8}  {}"
    print(layout.format(*COLUMNS))
    rows = []
    for name in chosen or modules():
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            print(layout.format(*cells(row)), flush=True)
            rows.append(row)
    if not chosen:
        write(rows, REPORT)
        print(f"Written to {REPORT}")


if __name__ == "__main__":
    main()
