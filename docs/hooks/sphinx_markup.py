r"""Sphinx's markup in docstrings as Markdown, for mkdocstrings: formulas, and references to other objects.

Docstrings use ``:math:`` and ``.. math::``, ``:class:`` and its like, which editors and Sphinx know. It is
a Griffe extension: the sources are parsed, and MindSpore is not imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import griffe

REFERENCE = Path(__file__).resolve().parents[1] / "api"
_BLOCK = re.compile(
    r"^(?P<margin> *)\.\. math::\n(?:[ ]*\n)*(?P<body>(?:(?P=margin) +\S.*(?:\n|\Z)|[ ]*\n)+)", re.M
)
_INLINE = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:class|meth|func|mod|attr|obj):`~?([^`]+)`")


def documented() -> frozenset[str]:
    """The objects that the pages of the API reference show."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return frozenset(re.findall(r"^::: (\S+)", pages, re.M))


def to_markdown(text: str, targets: frozenset[str] = frozenset()) -> str:
    """Rewrite one docstring.

    Args:
        text: the docstring.
        targets: objects that a reference can link to; any other becomes code.

    Returns:
        The same in Markdown.
    """

    def block(match: re.Match[str]) -> str:
        body = dedent(match["body"]).strip()
        if "&" in body or r"\\" in body:
            body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
        return indent(f"\n$$\n{body}\n$$\n\n", match["margin"])

    def inline(match: re.Match[str]) -> str:
        return f"${' '.join(match[1].split())}$"

    def reference(match: re.Match[str]) -> str:
        name = match[1]
        owner, _, member = name.rpartition(".")
        shown = member if name in targets or not owner else name
        return f"[`{shown}`][{name}]" if name in targets else f"`{shown}`"

    return _ROLE.sub(reference, _INLINE.sub(inline, _BLOCK.sub(block, text)))


class SphinxMarkup(griffe.Extension):
    """Rewrites every docstring of the package before it is parsed."""

    def __init__(self) -> None:
        super().__init__()
        self.targets = documented()

    def on_object(self, *, obj: griffe.Object, **arguments: Any) -> None:
        """Called for every object that has been read.

        Args:
            obj: the object.
            **arguments: what else Griffe passes.
        """
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, self.targets)
