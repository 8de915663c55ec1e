"""How `make docs` builds these pages: Markdown, the API from its docstrings, the commands from their parsers."""

import argparse
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from verydeep.cli.parser import build_parser

TOP = Path(__file__).resolve().parents[1]
OF_ALL = ("help", "json", "quiet")  # options of every command, which the reference explains once
ABOVE = {
    "../NOTES.md": "notes",
    "../SECURITY.md": "security",
    "../CHANGELOG.md": "changelog",
    "../CONTRIBUTING.md": "contributing",
}  # pages outside docs/

project = "verydeep"
author = "the verydeep authors"
copyright = "the verydeep authors, Apache-2.0"
release = metadata.version("verydeep")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build", "results"]
nitpicky = False
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # docstrings name code between single backquotes

html_theme = "furo"
html_title = "verydeep"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
html_show_sourcelink = False
html_copy_source = False


def _read_page(_app: Any, page: str, text: list[str]) -> None:
    """Reads pages from the folder above in place of their stand-ins, and fills in the command reference."""
    for path, name in ABOVE.items():
        if page == name:
            text[0] = (TOP / path[3:]).read_text(encoding="utf8").replace("](docs/", "](")
        text[0] = text[0].replace(f"]({path})", f"]({name}.md)")
    text[0] = re.sub(r"\[\w+\.md\]\(", "[](", text[0])  # a page named by its file is linked by its title
    if page == "commands":
        _, parsers = build_parser()
        text[0] = text[0].replace("<!-- commands -->", "\n".join(map(command_section, parsers.values())))


def command_section(parser: argparse.ArgumentParser) -> str:
    """One command as Markdown: description, usage, and its arguments, group by group."""
    positional = [_usage(action) for action in parser._actions if not action.option_strings]
    lines = [f"## {parser.prog}", "", _escaped(parser.description or ""), ""]
    lines += ["```text", " ".join([parser.prog, *positional, "[options]"]), "```", ""]
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help and action.dest not in OF_ALL]
        lines += [f"**{group.title}**", ""] if actions else []
        for action in actions:
            lines += [f"`{_spelling(action)}`", f": {_escaped(formatter._expand_help(action))}", ""]
    return "\n".join([*lines, _escaped(parser.epilog or ""), ""])


def _spelling(action: argparse.Action) -> str:
    """An argument as it is typed."""
    value = "" if action.nargs == 0 else _value(action)
    return " ".join(part for part in (", ".join(action.option_strings), value) if part)


def _value(action: argparse.Action) -> str:
    return str(action.metavar or "|".join(map(str, action.choices or (action.dest.upper(),))))


def _usage(action: argparse.Action) -> str:
    """A positional argument in a usage line."""
    name = _value(action) + ("…" if action.nargs in ("+", "*") else "")
    return f"[{name}]" if action.nargs in ("?", "*") else name


def _escaped(text: str) -> str:
    """Plain text as Markdown; what is typed, such as ``--data``, as code."""
    parts = re.split(r"(`[^`]*`|--[a-z][-a-z0-9]*)", text)
    plain = [re.sub(r"([\\*_<>\[\]$|])", r"\\\1", part) for part in parts[::2]]
    code = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(part for pair in zip(plain, [*code, ""], strict=True) for part in pair)


def _make_accessible(_app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Gives headings of the navigation a level, and what scrolls sideways the keyboard's focus."""
    tree, body = context["furo_navigation_tree"], context.get("body", "")
    context["furo_navigation_tree"] = tree.replace('role="heading">', 'role="heading" aria-level="2">')
    context["body"] = re.sub(r'<(pre|div class="table-wrapper[^"]*")>', r'<\1 tabindex="0">', body)


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _read_page)
    app.connect("html-page-context", _make_accessible, priority=900)  # after the theme's, which makes the tree
