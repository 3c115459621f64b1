"""A Sphinx extension for what the site promises: no other host, chapters that tell of their run.

- MathJax comes from the pinned package sphinx-mathjax-offline; sphinx-thebe, which loads a script
  from a CDN on every page, is switched off.
- A chapter ends with the date and the versions of the run whose outputs it shows, and with a link
  to the notebook. Browsers show what lies on the disk instead of downloading it: the link carries
  the notebook too, and the book's script hands that out on a page opened from the disk.
- A picture without alternative text, or a notebook's picture without a caption, is a warning, and
  so the build fails.
"""

from __future__ import annotations

import base64
import datetime
import html
import importlib.metadata
import json
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

from seglosses_nb.publish.parameters import source_text
from seglosses_nb.publish.site import NOTEBOOKS, RECORDS

logger = logging.getLogger(__name__)

# The search page fetches a summary of each hit; browsers forbid that to pages from the disk.
PLAIN_SEARCH_FROM_DISK = """
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            each for each in listeners if not each.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [each for each in app.registry.css_files if "thebe" not in each[0]]
    app.add_js_file(None, body=PLAIN_SEARCH_FROM_DISK, priority=300)
    app.connect("config-inited", settle_configuration)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", tidy)
    app.connect("doctree-read", require_descriptions)
    # after the theme has made its buttons
    app.connect("html-page-context", finish_chapter, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def settle_configuration(app: Sphinx, config: Config) -> None:
    """Load MathJax from the site, and name the theme's colour mode."""
    config.mathjax_path = "mathjax/tex-chtml-full.js"
    # without it the theme's script greets every new reader with an error in the console
    config.html_context.setdefault("default_mode", "auto")


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Ship MathJax and its fonts with the site."""
    if error or app.builder.format != "html":
        return
    distribution = importlib.metadata.distribution("sphinx-mathjax-offline")
    source = Path(str(distribution.locate_file("sphinx-mathjax-offline/static/mathjax")))
    target = Path(app.outdir, "_static", "mathjax")
    fonts = Path("output", "chtml", "fonts")
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copyfile(source / "tex-chtml-full.js", target / "tex-chtml-full.js")


def tidy(app: Sphinx, error: Exception | None) -> None:
    """Take out the theme's templates, and preloads that fail for pages opened from the disk."""
    if error or app.builder.format != "html":
        return
    for template in Path(app.outdir, "_static").glob("*webpack-macros.html"):
        template.unlink()
    for page in Path(app.outdir).rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        page.write_text(
            re.sub(r'<link rel="preload" as="font"[^>]*>\n?', "", content), encoding="utf-8"
        )


def require_descriptions(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of pictures that say nothing to those who cannot see them."""
    for image in doctree.findall(nodes.image):
        if not str(image.get("alt", "")).strip():
            logger.warning(
                "picture without alternative text (cell metadata mystnb.image.alt)",
                location=_place(image),
            )
        figure = image
        while figure is not None and not isinstance(figure, nodes.figure):
            figure = figure.parent
        made = any(
            isinstance(each, nodes.container) and "mime_type" in each for each in _ancestors(image)
        )
        if made and (figure is None or not any(isinstance(each, nodes.caption) for each in figure)):
            logger.warning(
                "picture without caption (cell metadata mystnb.figure.caption)",
                location=_place(image),
            )


def finish_chapter(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Say at the end of a chapter what it was run with, and offer the notebook."""
    file = Path(app.srcdir, RECORDS, f"{pagename}.json")
    if doctree is None or not file.is_file():
        return
    record = json.loads(file.read_text(encoding="utf-8"))
    notebook = Path(app.srcdir, NOTEBOOKS, f"{pagename}.ipynb").read_bytes()
    context["body"] += stamp(
        record, f"{context['pathto']('_sources', 1)}/{pagename}.ipynb", notebook
    )
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("label") == "download-source-button":
                button["text"] = "Notebook (.ipynb)"
                button["tooltip"] = "Download this chapter as a notebook"


def stamp(record: dict[str, Any], address: str, notebook: bytes) -> str:
    """The HTML that tells of a chapter's run."""
    finished = datetime.datetime.fromisoformat(record["finished"])
    date = f"{finished.day} {finished:%B %Y}"
    versions = ", ".join(
        f"{name}&nbsp;{html.escape(number)}" for name, number in record["versions"].items()
    )
    values = "; ".join(
        f"{name} = {source_text(value)}" for name, value in record["parameters"].items()
    )
    return f"""
<aside class="chapter-stamp" aria-label="About this chapter's numbers">
<p>Last run on <time datetime="{finished:%Y-%m-%d}">{date}</time> with {versions}
(<code>{html.escape(values)}</code>), in {record["seconds"]:.0f}&nbsp;s.</p>
<p><a class="download-notebook" href="{html.escape(address)}" download="{Path(address).name}"
data-notebook="{base64.b64encode(notebook).decode()}">Download this chapter as a notebook</a></p>
</aside>
"""


def _ancestors(node: nodes.Node) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def _place(node: nodes.Node) -> Any:
    # outputs of cells carry no line of their own
    while not node.line and node.parent is not None:
        node = node.parent
    return node
