#!/usr/bin/env python3
"""Looks for wording that readers stumble over, in Markdown, docstrings and comments.

    python scripts/check_prose.py docs README.md
    python scripts/check_prose.py --exclude docs/results docs ms_kfac README.md

Phrases are searched in Markdown outside code, and in Python's docstrings and comments. In Markdown, sentences
of more than 40 words are reported, too. Exits with 1 where something was found.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

LONGEST = 40

# An indefinite article where "per" is meant.
_COUNTED = r"(?:one|a line|an element|a flag|images|bytes|numbers|samples|seconds|calls?|tests?|rows?)"
_UNIT = (
    r"(?:layer|statistic|second|step|rank|row|sample|epoch|call|group|channel|parameter|line|kernel|operator)"
)

# What is found, and what to write instead.
PHRASES = {
    rf"\b{_COUNTED} an? {_UNIT}\b": "per",
    r"\bin (?:the )?place of\b": "instead of",
    r"\bfor ever\b": "forever",
    r"\bdearer\b": "more expensive",
    r"\blesser\b": "smaller",
    r"\bbeside(?! the point\b)\b": "next to, or in addition to",
    r"\bnobody (?:asks|has|needs|can)\b": "name the thing: it is unused",
    r"\bsomebody\b": "name who",
    r"\bcomposed forms?\b": "fallback",
    r"\bof all together\b": "name the thing",
    r"\b(?:as|that) it was\b": "name the thing",
    r", maybe\b": "possibly",
    r"\bby whomever\b": "name who",
    r"\bof (?:one's|its|their|his) own kind\b": "name the thing",
}


def prose_of_markdown(text: str) -> str:
    """The text with code, formulas, tables' rules and addresses blanked; lines keep their numbers."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", blank, text, flags=re.M | re.S)
    text = re.sub(r"^\$\$\n.*?^\$\$$|<!--.*?-->", blank, text, flags=re.M | re.S)
    text = re.sub(r"\$[^$\n]+\$|`[^`\n]+`", lambda match: "x".ljust(len(match[0])), text)
    return re.sub(r"\]\([^)\n]*\)", lambda match: "]" + " " * (len(match[0]) - 1), text)


def prose_of_python(text: str) -> str:
    """Docstrings and comments; everything else is blank, and lines keep their numbers."""
    lines = [""] * (text.count("\n") + 1)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                source = text.split("\n")[first.lineno - 1 : first.end_lineno]
                lines[first.lineno - 1 : first.end_lineno] = source
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] += " " + token.string.lstrip("#!")
    return "\n".join(lines)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Each sentence of Markdown prose with its line: a paragraph, an item or a heading ends one, too."""
    line = 1
    for paragraph in re.split(r"(\n(?:\s*\n)+|\n(?=\s*(?:[-*+#>|]|\d+\.)\s?))", text):
        if not paragraph.lstrip().startswith("|"):
            start = line
            for sentence in re.split(r"(?<=[.!?:;])\s+(?=[A-Z`*\[(x])", paragraph):
                yield start, sentence
                start += sentence.count("\n")
        line += paragraph.count("\n")


def words(sentence: str) -> int:
    """How many words a sentence has."""
    return len(re.findall(r"[^\W_][\w'.,-]*", sentence))


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """What is wrong in a file, as lines and messages."""
    text = path.read_text(encoding="utf-8")
    markdown = path.suffix == ".md"
    prose = prose_of_markdown(text) if markdown else prose_of_python(text)
    for pattern, better in PHRASES.items():
        # A phrase may run over the end of a line.
        for match in re.finditer(pattern.replace(" ", r"\s+"), prose, re.I):
            found = " ".join(match[0].split())
            yield prose.count("\n", 0, match.start()) + 1, f'"{found}": write "{better}"'
    if markdown:
        for line, sentence in sentences(prose):
            if words(sentence) > LONGEST:
                start = " ".join(sentence.split()[:6])
                yield line, f'a sentence of {words(sentence)} words: "{start} ..."; at most {LONGEST}'


def files(paths: Sequence[str], excluded: Sequence[str]) -> list[Path]:
    """The Markdown and Python files among and under some paths; Chinese has rules of its own."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        found += [file for file in inside if file.suffix in (".md", ".py") and ".zh-" not in file.name]
    outside = [Path(path) for path in excluded]
    return [file for file in found if not any(path in (file, *file.parents) for path in outside)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="check_prose", description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", help="files and folders")
    parser.add_argument("--exclude", action="append", default=[], help="a file or folder to leave out")
    options = parser.parse_args(arguments)
    missing = [path for path in options.paths if not Path(path).exists()]
    if missing:
        print(f"no such file or folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    count = 0
    for path in files(options.paths, options.exclude):
        for line, message in sorted(findings(path)):
            print(f"{path}:{line}: {message}")
            count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
