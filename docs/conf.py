"""Sphinx: this folder, the docstrings, the executed notebooks and some files of the repository.

Nothing is fetched, neither when the site is built nor when it is read: formulas are MathML, and
there are no scripts but the theme's own.
"""

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote

from docutils import nodes
from docutils.utils.math import latex2mathml
from numpydoc.docscrape_sphinx import SphinxDocString
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import p2f_lib  # noqa: E402
from p2f_lib import cli  # noqa: E402

project = "pix2face-open"
author = "The pix2face-open contributors"
copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]

html_theme = "furo"
html_title = "Pix2Face, open"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_domain_indices = False
html_show_sphinx = False
html_math_renderer = "mathml"

nb_execution_mode = "off"  # the notebooks of reports/ were executed by the pipeline
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_update_mathjax = False

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
add_module_names = False
viewcode_follow_imported_members = False  # "builtins" would become a module
default_role = "py:obj"  # single backquotes in docstrings; what has no page is shown as code
python_use_unqualified_type_names = True

# Files of the repository that become pages, and where.
PAGES = {
    "README.md": "generated/overview.md",
    "CHANGELOG.md": "generated/changelog.md",
    "CONTRIBUTING.md": "generated/contributing.md",
    "reports/metrics.md": "generated/metrics.md",
    "reports/model_card.md": "generated/model_card.md",
} | {
    f"reports/{path.name}": f"generated/notebooks/{path.name}"
    for path in sorted((ROOT / "reports").glob("*.ipynb"))
}
# And files that a page stands for.
STANDS_FOR = PAGES | {"notebooks/explore.ipynb": "notebooks.md"}

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
PLOTLY = "application/vnd.plotly.v1+json"
STEP = re.compile(r'\["<b>(.*?)</b><br>(.*?)"\]')


def with_site_links(text: str, folder: Path, page_folder: Path) -> str:
    """Markdown with the links of a file in `folder` made those of a page in `page_folder`.

    What has a page is linked there, other files are handed out with the site, folders become text.
    """

    def link(match: re.Match) -> str:
        picture, label, address = match.groups()
        target, _, anchor = address.partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = (folder / unquote(target)).resolve()
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir():
            return label
        path = DOCS / STANDS_FOR[name] if name in STANDS_FOR else path
        new = os.path.relpath(path, page_folder)
        return f"{picture}[{label}]({new}{'#' + anchor if anchor else ''})"

    return LINK.sub(link, text)


def listed(match: re.Match) -> str:
    """The chain of a Mermaid picture as a list, since drawing it takes a script from elsewhere."""
    return "\n".join(f"1. **{name}**: {modules}" for name, modules in STEP.findall(match[0]))


def page_of(name: str) -> str:
    """The text of a page that is made from a file of the repository."""
    path = ROOT / name
    page_folder = (DOCS / PAGES[name]).parent
    if path.suffix != ".ipynb":
        text = re.sub(r"```mermaid.*?```", listed, path.read_text(), flags=re.DOTALL)
        text = with_site_links(text, path.parent, page_folder)
        return text if text.startswith("# ") else f"# {path.stem.capitalize()}\n\n{text}"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = with_site_links("".join(cell["source"]), path.parent, page_folder)
            cell["source"] = text.splitlines(keepends=True)
        else:  # figures that turn under the mouse take a script; the next ones show the same
            cell["outputs"] = [o for o in cell["outputs"] if PLOTLY not in o.get("data", {})]
    return json.dumps(notebook)


def write_pages() -> None:
    """Write the pages that are made from files, where they have changed."""
    modules = (DOCS / "api.md").read_text().split()
    for path in (DOCS / "generated/api").glob("*.rst"):  # of modules that are gone
        if path.stem not in modules:
            path.unlink()
    for name, page in PAGES.items():
        path = DOCS / page
        path.parent.mkdir(parents=True, exist_ok=True)
        text = page_of(name)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def rewrite_links(app, docname, source) -> None:
    """Links of the pages of this folder, which are right on a code host, too."""
    path = app.env.doc2path(docname)
    if path.suffix == ".md" and not docname.startswith("generated/"):
        source[0] = with_site_links(source[0], path.parent, path.parent)


# --- formulas -------------------------------------------------------------------------------------

TAG = re.compile(r"\\tag\{(.*?)\}")
# What docutils' converter doesn't know, or reads otherwise than TeX.
TEX = [
    (TAG, ""),  # beside the formula
    (re.compile(r"\\Big\|(.*?)\\Big\|", re.DOTALL), r"\\left|\1\\right|"),
    (re.compile(r"(\\(?:hat|bar))\s*(\w)"), r"\1{\2}{}"),  # or an index goes below the letter
]


def mathml(latex: str, block: bool) -> str:
    for pattern, replacement in TEX:
        latex = pattern.sub(replacement, latex)
    return latex2mathml.tex2mathml(latex.strip(), as_block=block)


def visit_math(self, node) -> None:
    self.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_math_block(self, node) -> None:
    tag = TAG.search(node.astext())
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ""
    self.body.append(f'<div class="formula">{mathml(node.astext(), block=True)}{number}</div>')
    raise nodes.SkipNode


# --- names of the library -------------------------------------------------------------------------


class Names(SphinxTransform):
    """``p2f_lib.crop.Box`` as code is a link to its entry, without any markup."""

    default_priority = 210
    NAME = re.compile(r"(p2f_lib(\.\w+)+)(\(.*\))?")

    def apply(self, **kwargs) -> None:
        for node in list(self.document.findall(nodes.literal)):
            match = self.NAME.fullmatch(node.astext())
            if isinstance(node.parent.parent, nodes.entry):
                self.make_breakable(node)
            if match and not isinstance(node.parent, (nodes.reference, addnodes.pending_xref)):
                link = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=match[1], refexplicit=True
                )
                node.replace_self(link)
                link += node

    @staticmethod
    def make_breakable(node: nodes.literal) -> None:
        """Long names in tables may break at their joints."""
        parts = re.split(r"(?<=[._/:=])(?=\w)", node.astext())
        node.clear()
        for part in parts:
            node += [nodes.Text(part), nodes.raw("", "<wbr>", format="html")]


def read_docstring(app, what, name, obj, options, lines) -> None:
    """Sections of a docstring as it is written: ``name : description`` stay on one line.

    numpydoc's own extension would do more, some of it to objects that have no entry.
    """
    # |yaw| is an absolute value, not one of docutils' substitutions.
    text = re.sub(r"\|(\w+)\|", r"\\|\1\\|", "\n".join(lines))
    lines[:] = str(SphinxDocString(text)).splitlines()


def resolve_by_suffix(app, env, node, contnode):
    """`Face` in a docstring means the one ``p2f_lib.reconstruction.Face``, wherever it is said."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    target = node["reftarget"].removesuffix("()")
    if target.removeprefix("p2f_lib.") in p2f_lib.__all__:  # documented where it is defined
        target = target.removeprefix("p2f_lib.")
    found = [name for name in objects if name == target or name.endswith(f".{target}")]
    found = found or [name for name in objects if name == target.rpartition(".")[0]]  # attributes
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, found[0]
    )


# --- the command line -----------------------------------------------------------------------------


class CommandHelp(SphinxDirective):
    """``--help`` of `p2f` and of every command."""

    def run(self) -> list[nodes.Node]:
        os.environ["COLUMNS"] = "88"
        parser = cli.make_parser()
        commands = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
        content = [nodes.literal_block("", parser.format_help(), language="text")]
        for name, command in commands.items():
            section = nodes.section(ids=[f"p2f-{name}"], names=[name])
            section += nodes.title("", "", nodes.literal("", f"p2f {name}"))
            section += nodes.literal_block("", command.format_help(), language="text")
            self.state.document.note_explicit_target(section)
            content.append(section)
        return content


def setup(app) -> None:
    write_pages()
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.add_transform(Names)
    app.add_directive("p2f-help", CommandHelp)
    app.connect("source-read", rewrite_links)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("missing-reference", resolve_by_suffix)
