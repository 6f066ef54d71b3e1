"""The documentation: it builds without a warning, its links lead somewhere, its names exist."""

import ast
import json
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from p2f_lib import cli

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("guides/*.md"))]
NAME = re.compile(r"`(p2f_lib(?:\.\w+)+)`")
TEST = re.compile(r"`(test_\w+\.py)::(\w+)`")
LINK = re.compile(r"\]\((?!\w+:)([^)#]+)")


class Page(HTMLParser):
    """Links, what is loaded, anchors and links' texts of one page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors, self.names = [], [], set(), set()
        self.formulas, self.inside = 0, 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        self.formulas += tag == "math"
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
            self.inside, self.text = True, ""
        if tag == "link" and attributes.get("rel") != "canonical":
            self.loaded.append(attributes["href"])
        if tag in ("img", "script", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])

    def handle_data(self, data):
        if self.inside:
            self.text += data

    def handle_endtag(self, tag):
        if tag == "a" and self.inside:
            self.names.add(self.text.strip())
            self.inside = False


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Pages of the built site by their paths in it."""
    folder = tmp_path_factory.mktemp("site")
    flags = ["-W", "--keep-going", "-q", "-E", "-d", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *flags, DOCS, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    root = folder / "html"
    return root, {p.relative_to(root).as_posix(): Page(p) for p in root.rglob("*.html")}


def target_of(page, address):
    """Page or file of the site, and anchor, that a link of a page leads to."""
    name, _, anchor = address.partition("#")
    path = (Path("/") / page).parent / unquote(name.partition("?")[0]) if name else Path("/") / page
    parts = []
    for part in path.parts[1:]:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts), anchor


def is_remote(address):
    return re.match(r"(https?:)?//", address) is not None


def test_links_of_the_site_lead_somewhere(site):
    root, pages = site
    broken = []
    for name, page in pages.items():
        if name.startswith("_downloads/"):  # pages of their own
            continue
        for address in page.links + page.loaded:
            if is_remote(address) or address.startswith(("mailto:", "data:")):
                continue
            target, anchor = target_of(name, address)
            if not (root / target).is_file():
                broken.append(f"{name}: {address}")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                broken.append(f"{name}: {address} (no such place)")
    assert not broken


def test_nothing_is_fetched_when_the_site_is_read(site):
    _, pages = site
    assert not [(name, a) for name, page in pages.items() for a in page.loaded if is_remote(a)]


def test_every_page_is_reached_from_the_first(site):
    _, pages = site
    todo, seen = ["index.html"], {"index.html"}
    while todo:
        name = todo.pop()
        for address in pages[name].links:
            target = target_of(name, address)[0]
            if not is_remote(address) and target in pages and target not in seen:
                seen.add(target)
                todo.append(target)
    # The field for searching leads to the first, nothing to the list of the sources.
    assert set(pages) - seen <= {"search.html", "_modules/index.html"}


def test_notebooks_keep_their_pictures_and_formulas(site):
    _, pages = site
    for path in sorted((ROOT / "reports").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        page = pages[f"generated/notebooks/{path.stem}.html"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        pictures = [o for o in outputs if {"image/png", "image/jpeg"} & o.get("data", {}).keys()]
        shown = [a for a in page.loaded if "_images/" in a]
        assert len(shown) == len(pictures) > 0, path.name
        prose = "".join(t for c in cells if c["cell_type"] == "markdown" for t in c["source"])
        formulas = re.findall(r"\$\$.+?\$\$|\$[^$\n]+?\$", prose, re.DOTALL)
        assert page.formulas == len(formulas), path.name


def test_every_command_has_its_help(site):
    _, pages = site
    commands = next(a.choices for a in cli.make_parser()._actions if isinstance(a.choices, dict))
    assert {f"p2f-{name}" for name in commands} <= pages["cli.html"].anchors


def test_functions_of_the_paper_are_links(site):
    _, pages = site
    names = set(NAME.findall((DOCS / "paper_to_code.md").read_text()))
    assert names <= pages["paper_to_code.html"].names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_names_and_files_of_a_page_exist(page):
    text = page.read_text()
    for name in set(NAME.findall(text)):
        holder, _, last = name.rpartition(".")
        try:
            pkgutil.resolve_name(name)
        except AttributeError:  # a field of a dataclass without a default
            assert last in pkgutil.resolve_name(holder).__annotations__, name
    for address in LINK.findall(text):
        assert (page.parent / unquote(address)).exists(), address


def test_tests_of_the_paper_exist():
    found = TEST.findall((DOCS / "paper_to_code.md").read_text())
    assert len(found) > 20
    for file, name in found:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_every_equation_has_its_function():
    rows = [r for r in (DOCS / "paper_to_code.md").read_text().splitlines() if r.startswith("| Eq")]
    equations = {re.match(r"\| Eq\. (\d)", row)[1] for row in rows}
    assert equations == set("12345")
    assert all(NAME.search(row) and TEST.search(row) and LINK.search(row) for row in rows)
