"""Chromium, and the two ways in which the notebook explore is served, for tests and pictures."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 240_000  # ms; pictures are drawn without a graphics card, maybe beside other work
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def command_of(target: str) -> list[str]:
    """The words of a Makefile target's one command."""
    makefile = (ROOT / "Makefile").read_text()
    command = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.M)[1]
    return command.replace("\\\n", " ").replace("@", "", 1).split()


@contextmanager
def served(target: str, answers: str, folder: Path = ROOT, options: tuple[str, ...] = ()):
    """The address at which `make app` or `make lab` serves, on a port of its own.

    Parameters
    ----------
    answers : path that is asked until the server answers it.
    folder : where the command runs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *command_of(target), "--no-browser", f"--port={port}", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address + answers, timeout=5)
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def app():
    """The page as `make app` serves it."""
    with served("app", "voila/static/voila.js") as address:
        yield address


@contextmanager
def lab(folder: Path):
    """JupyterLab as `make lab` opens it, over a copy of the notebook that it may save."""
    (folder / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "explore.ipynb", folder / "notebooks")
    options = ("--IdentityProvider.token=", "--allow-root", "--LabApp.news_url=None")
    with served("lab", "lab", folder, options) as address:
        yield address + "lab/tree/notebooks/explore.ipynb?reset"


@contextmanager
def window(address: str, width: int = 1300, height: int = 1500):
    """A page of Chromium that has opened an address."""
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        yield page
        browser.close()


def run_all(page) -> None:
    """Run all cells of the notebook that is open in JupyterLab."""
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def wait_for_mesh(page) -> None:
    """Until the bundled portrait is fitted and its mesh drawn."""
    page.get_by_text("astronaut: yaw").wait_for()
    page.locator(".js-plotly-plot .gl-container").first.wait_for(state="attached")


def scene(page, path: Path) -> np.ndarray:
    """The mesh as it is drawn, (H, W, 3), once two pictures in a row are alike."""
    plot = page.locator(".js-plotly-plot").first
    before = None
    for _ in range(60):
        plot.screenshot(path=path)
        now = np.asarray(Image.open(path).convert("RGB")).astype(int)
        if before is not None and before.shape == now.shape and (before == now).all():
            return now
        before = now
        time.sleep(1)
    raise AssertionError("The picture of the mesh never came to rest.")


def upload(page, path: Path) -> None:
    """Give a file to the button Upload."""
    with page.expect_file_chooser() as chooser:
        page.locator(".widget-upload").click()
    chooser.value.set_files(path)
