"""The page of `make app` and the notebook of `make lab` in a real browser, where there is one."""

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests import browser

pytest.importorskip("playwright", reason="needs playwright: uv sync")
pytestmark = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="needs Chromium: apt install chromium"
)


def visit(page, tmp_path) -> None:
    """What a newcomer does: look, move a slider, upload rubbish and a photo, save the mesh."""
    shot = tmp_path / "scene.png"
    browser.wait_for_mesh(page)
    assert page.locator("figure img").count() == 6
    first = browser.scene(page, shot)
    assert (first < 200).any(axis=2).mean() > 0.1  # a face, not an empty frame

    jaw = page.locator(".widget-hslider", has_text="jawOpen").locator(".noUi-handle")
    jaw.focus()
    for _ in range(15):
        jaw.press("ArrowRight")
    moved = browser.scene(page, shot)
    assert differ(first, moved)

    photo, rubbish = tmp_path / "mirrored.png", tmp_path / "rubbish.jpg"
    Image.fromarray(skimage.data.astronaut()[:, ::-1]).save(photo)
    rubbish.write_bytes(b"no picture at all")
    browser.upload(page, rubbish)
    page.get_by_text("rubbish.jpg is not a picture that can be read").wait_for()
    browser.upload(page, photo)
    page.get_by_text("mirrored.png: yaw").wait_for()
    assert differ(moved, browser.scene(page, shot))

    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_text("Save face.glb").click()
    assert download.value.path().read_bytes()[:4] == b"glTF"


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures of the mesh show different meshes."""
    return bool((np.abs(one - other).max(axis=2) > 30).mean() > 0.005)


def test_the_app(tmp_path):
    with browser.app() as address, browser.window(address) as page:
        visit(page, tmp_path)
        # Two faces are there by now: each is compared with the other, both get one shape.
        compare = page.locator(".widget-dropdown", has_text="compare").locator("select")
        compare.select_option("astronaut")
        page.get_by_text("mm on average").wait_for()
        several = page.locator(".widget-select-multiple select")
        several.select_option(["astronaut", "mirrored.png"])
        page.get_by_role("button", name="One shape for these").click()
        page.get_by_text("One shape for 2 photos").wait_for()
        # No code to be seen, and no way to it.
        assert page.locator(".jp-CodeMirrorEditor, .jp-InputArea-editor").count() == 0
        assert page.get_by_text("explorer.faces").count() == 0


def test_jupyterlab(tmp_path):
    with browser.lab(tmp_path / "lab") as address, browser.window(address) as page:
        browser.run_all(page)
        visit(page, tmp_path)
        page.get_by_text("12838 vertices, as fitted: True").wait_for()


def test_a_landmark_is_clicked(tmp_path):
    with browser.app() as address, browser.window(address) as page:
        browser.wait_for_mesh(page)
        browser.scene(page, tmp_path / "scene.png")
        markup = page.locator(".widget-dropdown", has_text="landmarks").locator("select")
        markup.select_option("ibug68")
        browser.scene(page, tmp_path / "scene.png")
        shown = np.asarray(Image.open(tmp_path / "scene.png").convert("RGB")).astype(int)
        green = (shown[..., 1] > 200) & (shown[..., 0] < 120) & (shown[..., 2] < 90)
        count, _, _, centres = cv2.connectedComponentsWithStats(green.astype(np.uint8))
        assert count > 30  # those of eyes and mouth may touch
        middle = np.argmin(np.linalg.norm(centres[1:] - np.array(green.shape[::-1]) / 2, axis=1))
        plot = page.locator(".js-plotly-plot").first.bounding_box()
        x, y = (float(c) for c in centres[1 + middle] + [plot["x"], plot["y"]])
        page.mouse.move(x - 3, y - 3)
        page.mouse.move(x, y, steps=3)
        page.wait_for_timeout(2000)  # the drawing that finds what is under the mouse
        page.mouse.down()
        page.wait_for_timeout(500)
        page.mouse.up()
        page.get_by_text("ibug68 landmark").wait_for()
        assert "vertex" in page.get_by_text("ibug68 landmark").inner_text()
