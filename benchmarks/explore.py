"""How often the mesh of the notebook explore follows a slider, in Chromium without a GPU."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import Row, median_ms
from benchmarks._common import RELEASE
from p2f_lib.explore import Explorer
from p2f_lib.reconstruction import Reconstructor
from tests import browser

SECONDS = 8
# A key is held: the slider moves 20 times a second, back again from its end. What is counted are
# meshes drawn, each in full, picking included.
HOLD = """async ([seconds, slider]) => {
  const handle = [...document.querySelectorAll('.widget-hslider')]
    .find(each => each.textContent.includes(slider)).querySelector('.noUi-handle');
  const plot = document.querySelector('.js-plotly-plot'), drawn = [];
  plot.on('plotly_afterplot', () => drawn.push(performance.now()));
  handle.focus();
  const start = performance.now();
  let key = 'ArrowRight', pressed = 0;
  while (performance.now() - start < 1000 * seconds) {
    if (++pressed % 40 == 0) key = key == 'ArrowRight' ? 'ArrowLeft' : 'ArrowRight';
    handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    await new Promise(done => setTimeout(done, 50));
  }
  return drawn;
}"""


def rows() -> list[Row]:
    """Updates a second in the browser, and the kernel's part of one."""
    return [_kernel(), _browser()]


def _kernel() -> Row:
    explorer = Explorer(Reconstructor.from_pretrained(RELEASE, device="cpu"))
    explorer.bundled.value = "astronaut"
    slider = explorer.expression[0]
    values = iter(np.tile([0.1, 0.2], 10_000))

    def move() -> None:
        slider.value = next(values)

    note = f"{len(explorer.vertices)} vertices, no browser listens; reference: a new figure"
    return Row("explore_kernel_ms", median_ms(move), "ms", median_ms(explorer._draw_mesh), note)


def _browser() -> Row:
    name, unit = "explore_updates_per_s", "updates/s"
    if browser.CHROMIUM is None:
        return Row(name, np.nan, unit, note="not measured: no Chromium")
    with (
        TemporaryDirectory() as folder,
        browser.app() as address,
        browser.window(address, 1280, 800) as page,
    ):
        browser.wait_for_mesh(page)
        browser.scene(page, Path(folder, "scene.png"))
        drawn = np.array(page.evaluate(HOLD, [SECONDS, "jawOpen"]))
    note = "Chromium drawing in software, 1280x800, 20 moves/s; median of the intervals"
    return Row(name, float(1000 / np.median(np.diff(drawn))), unit, note=note)
