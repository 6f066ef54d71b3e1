"""The One-Euro filter: smoothing that knows no future, for live use."""

from __future__ import annotations

import numpy as np

from p2f_lib.errors import P2FError

# Casiez et al. 2012. The first keeps a still head from trembling; with the second, which was raised
# until a quick one hardly lags (`p2f evaluate-tracking`), speeds count in face sizes a second.
MIN_CUTOFF = 2.0  # Hz
BETA = 30.0  # Hz per face size a second
DERIVATIVE_CUTOFF = 1.0  # Hz


class OneEuro:
    """Low-pass filter that opens with speed (Casiez, Roussel, Vogel 2012), for uneven frame rates.

    Parameters
    ----------
    min_cutoff
        Cut-off frequency at rest, Hz; lower trembles less.
    beta
        Hz that a speed of one unit a second adds to it; higher lags less.
    derivative_cutoff
        Hz, of the speed's own low pass.
    """

    def __init__(
        self,
        min_cutoff: float = MIN_CUTOFF,
        beta: float = BETA,
        derivative_cutoff: float = DERIVATIVE_CUTOFF,
    ) -> None:
        if min_cutoff <= 0 or beta < 0 or derivative_cutoff <= 0:
            raise P2FError(
                "Cut-off frequencies have to be above 0 and beta at least 0, got "
                f"{min_cutoff}, {beta} and {derivative_cutoff}."
            )
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self.reset()

    def reset(self) -> None:
        """Forget what came before, as at a cut."""
        self._time: float | None = None
        self._scene = 0
        self._values = self._speed = np.zeros(())

    def __call__(
        self, values: np.ndarray, time: float, unit: float = 1.0, scene: int = 0
    ) -> np.ndarray:
        """The filtered values of one moment.

        Parameters
        ----------
        values
            Of one shape at every call. With a NaN among them the filter starts anew.
        time
            Seconds, later than at the call before.
        unit
            Length in which speeds count, such as the face's size in pixels.
        scene
            Where it changes, the filter starts anew.
        """
        values = np.asarray(values, dtype=float)
        if scene != self._scene:
            self.reset()
            self._scene = scene
        if not np.isfinite(values).all():
            self.reset()
            return values
        if self._time is None:
            self._speed, result = np.zeros_like(values), values
        else:
            step = time - self._time
            if step <= 0:
                raise P2FError(f"Time has to grow, got {time:g} s after {self._time:g} s.")
            speed = (values - self._values) / (unit * step)
            self._speed = self._speed + _share(self.derivative_cutoff, step) * (speed - self._speed)
            cutoff = self.min_cutoff + self.beta * np.abs(self._speed)
            result = self._values + _share(cutoff, step) * (values - self._values)
        self._time, self._values = time, result
        return result


def _share(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Of the new value in the mean, for a cut-off in Hz and a time step in seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
