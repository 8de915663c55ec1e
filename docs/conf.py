"""How `make docs` builds these pages: Sphinx, with Markdown as it is written and the API from its docstrings."""

from importlib import metadata
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
ABOVE = {"../NOTES.md": "notes", "../SECURITY.md": "security", "../CHANGELOG.md": "changelog"}  # pages outside docs/

project = "verydeep"
author = "the verydeep authors"
copyright = "the verydeep authors, Apache-2.0"
release = metadata.version("verydeep")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build", "results"]
nitpicky = False
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # docstrings name code between single backquotes

html_theme = "furo"
html_title = "verydeep"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
html_show_sourcelink = False
html_copy_source = False


def _one_above(_app: Any, page: str, text: list[str]) -> None:
    """Pages of the folder above are read in place of their stand-ins, and links to them lead here."""
    for path, name in ABOVE.items():
        if page == name:
            text[0] = (TOP / path[3:]).read_text(encoding="utf8").replace("](docs/", "](")
        text[0] = text[0].replace(f"]({path})", f"]({name}.md)")


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _one_above)
