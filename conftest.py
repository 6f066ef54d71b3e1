"""Settings of every test run: pinned threads, and what nbval compares."""

import os

from p2f_lib.notebook_engine import STABLE_ENVIRONMENT

# Notebooks' kernels inherit these, as they do in the pipeline.
for _name, _value in STABLE_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

# Markup repeats the text beside it, Plotly's figures are megabytes of rounded-off numbers,
# and stderr holds progress bars.
_NOT_COMPARED = ("text/html", "application/vnd.plotly.v1+json", "stderr")


def pytest_collectstart(collector):
    """Leave out of nbval's comparison what differs from run to run."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += _NOT_COMPARED
