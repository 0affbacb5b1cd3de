"""The documentation site: `make docs` builds it with Sphinx from the Markdown of docs/ into var/site/."""

from __future__ import annotations

import re
import sys
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util import logging
from tornado.web import RequestHandler

import stormcellar.errors
import stormcellar.stores
from stormcellar import Events, Session

project = "Stormcellar"
project_copyright = "Stormcellar contributors"
html_title = "Stormcellar"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["site"]
# The names of anchors are those of code hosts, three levels deep.
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# A name in backquotes is a link where there is something of that name, else code.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
ERRORS = {**vars(stormcellar.errors), **vars(stormcellar.stores)}
SECTIONS = Config(napoleon_use_rtype=False)

# What is made by the library or by Tornado, so that how to call it is nobody's business.
MADE_FOR_USERS = (RequestHandler, Session, Events, Enum)
LINK_OUT = re.compile(r"\[([^]]+)\]\(\.\./(?:[^)]+\.md|[^).]+)\)")
FILE_NAME = re.compile(r"(?<!!)\[[\w/-]+\.md\]\(")
LOADED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
log = logging.getLogger(__name__)


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the navigation from the links of index.md, one part for each of its headings.

    A link to a page or a folder outside docs/ leads nowhere in the site, so its text alone stays. A link
    whose text is the name of a file gets the title of its target.
    """
    source[0] = FILE_NAME.sub("[](", LINK_OUT.sub(r"\1", source[0]))
    if name == "index":
        for part in source[0].split("\n## ")[1:]:
            title, _, text = part.partition("\n")
            pages = re.findall(r"\]\(([\w/-]+)\.(?:md|rst)\)", text)
            lines = ["", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""]
            source[0] += "\n".join(lines)


def read_docstring(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Read the sections of a docstring, such as Args."""
    # In the docstring of an attribute napoleon takes what stands before a colon for its type.
    read = GoogleDocstring(lines, SECTIONS, app, "function", name, obj, options).lines()
    lines[:] = [line for each in read for line in explain_errors(each)]


def explain_errors(line: str) -> list[str]:
    """Give each error that a docstring only names the first line of its own docstring."""
    named = re.fullmatch(r":raises ([\w, ]+):", line)
    errors = named[1].split(", ") if named else []
    return [f":raises {each}: {ERRORS[each].__doc__.splitlines()[0]}" for each in errors] or [line]


def read_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show the values of defaults, and no arguments of what users do not make themselves."""
    if isinstance(obj, type) and issubclass(obj, MADE_FOR_USERS):
        return "", ""
    if not signature:
        return None
    constants = sys.modules[getattr(obj, "__module__", __name__)]
    shown = re.sub(r"\bDEFAULT_[\w.]+", lambda it: repr(attrgetter(it[0])(constants)), signature)
    return shown, returns


def skip_alias(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple that have no docstring of their own."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field") else None


def refuse_foreign_hosts(app: Sphinx, error: Exception | None) -> None:
    """Warn of each page that loads something from another host: the site works without a network."""
    for page in () if error else Path(app.outdir).rglob("*.html"):
        for tag in LOADED.findall(page.read_text()):
            log.warning("%s loads from another host: %s", page.relative_to(app.outdir), tag)


def setup(app: Sphinx) -> None:
    """Register the functions above, and show the verbs of a session as the coroutine functions they are."""
    for name, method in list(vars(Session).items()):
        if hasattr(method, "__wrapped__"):
            setattr(Session, name, method.__wrapped__)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("build-finished", refuse_foreign_hosts)
