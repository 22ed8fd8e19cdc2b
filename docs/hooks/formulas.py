"""Formulas as MathML, made when the site is built: pages need no script and no other server."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# pymdownx.arithmatex writes \( \) around a formula in a line and \[ \] around one of its own.
_FORMULA = re.compile(r'(<(?:span|div) class="arithmatex">)\\([(\[])(.*?)\\[)\]](</(?:span|div)>)', re.S)


def on_page_content(content: str, **arguments: Any) -> str:
    """Called by MkDocs with the HTML of every page.

    Args:
        content: the HTML.
        **arguments: what else MkDocs passes.

    Returns:
        The HTML with every formula as MathML.

    Raises:
        ValueError: if a formula holds what latex2mathml does not know.
    """
    return _FORMULA.sub(_as_mathml, content)


def _as_mathml(match: re.Match[str]) -> str:
    # latex2mathml knows align*, but not the form of it that may stand inside a formula.
    formula = html.unescape(match[3]).strip().replace("{aligned}", "{align*}")
    result = convert(formula, display="block" if match[2] == "[" else "inline")
    if re.search(r"\\|&amp;|&#x00026;", re.sub(r"<[^>]*>", "", result)):
        raise ValueError(f"latex2mathml does not know all of {formula!r}")
    return f"{match[1]}{result}{match[4]}"
