"""The documentation as a site: README, docs and docstrings, read where they lie (``make docs``)."""

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import indm  # noqa: E402

project = "INDM reproduction suite"
author = "The INDM reproduction suite's contributors"
project_copyright = f"{author}, Apache License 2.0"
release = version = indm.__version__

# The sources are those of the checkout, so that a link works on the site and in a listing of files alike.
root_doc = "docs/index"
include_patterns = ["docs/**", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "reports/README.md"]
exclude_patterns = ["docs/results/*/kept", "docs/templates"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    # MathJax from a package, not from the network.
    "sphinx-mathjax-offline",
    # For the picture of the pipeline; without a network its script is missing, and the arrows are shown as text.
    "sphinxcontrib.mermaid",
]
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 4
# A folder is a link in a listing of files, and none on a site: a test looks after the links. Two classes may have a shape.
suppress_warnings = ["myst.header", "myst.xref_missing", "ref.python"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = ["References"]

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("tables.js", {"defer": "defer"})]
# index.html at the top of the site leads to docs/index.html.
html_extra_path = ["site-root"]
# Where the site is published, its pages link to the repository that it is published from.
if repository := os.environ.get("GITHUB_REPOSITORY"):
    url = f"https://github.com/{repository}"
    html_theme_options = {
        "source_repository": url,
        "source_branch": "main",
        "source_directory": "",
        "footer_icons": [{"name": "Repository", "url": url, "html": "Repository", "class": ""}],
    }


def setup(app: Any) -> None:
    """Render shapes such as (B, *) as they stand: a star would begin emphasis."""
    app.connect("autodoc-process-docstring", _escape_stars)


def _escape_stars(_app: Any, _what: str, _name: str, _found: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [re.sub(r"(?<!`)(\(|, )\*\)", r"\1\\*)", line) for line in lines]
