"""Rows of numbers as files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any


def write_table(path: str | Path, rows: Sequence[Any]) -> None:
    """Dataclasses of one kind as CSV, a column a field, numbers with four significant digits."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(rows[0])]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            cells = (getattr(row, name) for name in names)
            writer.writerow(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in cells)
