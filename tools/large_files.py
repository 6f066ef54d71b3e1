"""Refuse files that git shouldn't keep for ever: ``python tools/large_files.py FILE...``."""

import sys
from pathlib import Path

LIMIT = 1_000_000  # bytes


def main() -> int:
    """Name the files that are too large; the exit status is 1 if there are any."""
    large = {path: size for path in sys.argv[1:] if (size := Path(path).stat().st_size) > LIMIT}
    for path, size in large.items():
        print(
            f"{path} has {size / 1e6:.1f} MB, and at most {LIMIT / 1e6:.0f} MB are allowed in git. "
            "Put it where DVC keeps it (data/, or a stage's output in build/), or make it smaller."
        )
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main())
