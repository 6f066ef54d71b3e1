"""The page of `make app` in a real browser: Chromium, where one is installed."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.test_pipeline import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: uv sync")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
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


@pytest.fixture(scope="module")
def address():
    """The page, served as `make app` serves it."""
    makefile = (ROOT / "Makefile").read_text()
    command = re.search(r"^app:.*\n((?:\t.*\n)+)", makefile, re.M)[1].replace("\\\n", " ")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.strip("@") for word in command.split()]
    server = subprocess.Popen(
        [sys.executable, "-m", *words, "--no-browser", f"--port={port}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}voila/static/voila.js", timeout=5)
                break
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(address):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        yield page
        browser.close()


def scene(page) -> np.ndarray:
    """The mesh as it is drawn, once two pictures in a row are alike."""
    plot = page.locator(".js-plotly-plot").first
    before = None
    for _ in range(60):
        plot.screenshot(path=page.shot)
        now = np.asarray(Image.open(page.shot).convert("RGB")).astype(int)
        if before is not None and before.shape == now.shape and (before == now).all():
            return now
        before = now
        time.sleep(1)
    raise AssertionError("The picture of the mesh never came to rest.")


def upload(page, path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload").click()
    chooser.value.set_files(path)


def test_a_newcomer_s_visit(page, tmp_path):
    page.shot = str(tmp_path / "scene.png")
    page.get_by_text("astronaut: yaw").wait_for()
    page.locator(".js-plotly-plot .gl-container").first.wait_for(state="attached")
    assert page.locator("figure img").count() == 6
    first = scene(page)
    assert (first < 200).any(axis=2).mean() > 0.1  # a face, not an empty frame

    jaw = page.locator(".widget-hslider", has_text="jawOpen").locator(".noUi-handle")
    jaw.focus()
    for _ in range(15):
        jaw.press("ArrowRight")
    moved = scene(page)
    assert (np.abs(moved - first).max(axis=2) > 30).mean() > 0.005

    photo, rubbish = tmp_path / "mirrored.png", tmp_path / "rubbish.jpg"
    Image.fromarray(skimage.data.astronaut()[:, ::-1]).save(photo)
    rubbish.write_bytes(b"no picture at all")
    upload(page, rubbish)
    page.get_by_text("rubbish.jpg is not a picture that can be read").wait_for()
    upload(page, photo)
    page.get_by_text("mirrored.png: yaw").wait_for()
    assert (np.abs(scene(page) - moved).max(axis=2) > 30).mean() > 0.005

    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_text("Save face.glb").click()
    assert download.value.path().read_bytes()[:4] == b"glTF"
