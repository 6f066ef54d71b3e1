"""Pictures of the notebook explore, in JupyterLab and as a page: `python -m tools.screenshots`.

Needs Chromium. They are looked at, not compared: another browser draws other pixels.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page

from tests import browser

FIGURES = browser.ROOT / "reports" / "figures"


def save(page: Page, name: str) -> None:
    """What the page shows, as a JPEG of the report."""
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.save(FIGURES / name, quality=85, optimize=True)
    print(f"Written: {FIGURES / name}")


def main() -> None:
    with TemporaryDirectory() as folder:
        with browser.app() as address, browser.window(address, 1240, 1380) as page:
            browser.wait_for_mesh(page)
            browser.scene(page, Path(folder, "scene.png"))
            save(page, "app.jpg")
        lab = browser.lab(Path(folder, "lab"))
        with lab as address, browser.window(address, 1500, 1250) as page:
            page.locator("button", has_text="No").last.click()  # thanks, no news
            browser.run_all(page)
            browser.wait_for_mesh(page)
            page.locator(".jp-OutputArea-output").first.scroll_into_view_if_needed()
            browser.scene(page, Path(folder, "scene.png"))
            save(page, "lab.jpg")


if __name__ == "__main__":
    main()
