"""Timings beside their references, collected by ``python -m benchmarks``."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# All figures are of one core. Numerical libraries read these when they are first imported, which
# comes after this package.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@dataclass(frozen=True)
class Row:
    """One line of reports/benchmarks.csv.

    A module of this package takes part by having ``rows() -> list[Row]``.

    Attributes
    ----------
    name : str
        What was measured, unique: ``rasterizer.47k_triangles``.
    value : float
        The measured figure; a median where it is a time.
    unit : str
        Its unit: ``ms``, ``s``, ``images/s``.
    reference : float, optional
        The same figure of the reference, measured in the same run.
    note : str
        What the reference is, and the size of the problem.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value by reference: below 1 is faster for a time, above 1 for a rate."""
        return None if self.reference is None else self.value / self.reference


def median_ms(function: Callable[[], object], repeats: int = 7) -> float:
    """Median time of a call in milliseconds, after one call that isn't counted.

    Parameters
    ----------
    function : callable
        Called without arguments.
    repeats : int
        Number of timed calls.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
