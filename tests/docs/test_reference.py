"""The API reference shows every public name, and Sphinx's markup in docstrings becomes Markdown."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

import ms_kfac
from tests.docs.pages import DOCS, ROOT

MODULES = {"curvature": ms_kfac.curvature, "kernels": ms_kfac.kernels, "parallel": ms_kfac.parallel}
PUBLIC = [name for name in ms_kfac.__all__ if name not in MODULES and name != "__version__"]
PUBLIC += [f"{prefix}.{name}" for prefix, module in MODULES.items() for name in module.__all__]


def shown() -> set[str]:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    return set(re.findall(r"^::: (\S+)", pages, re.M))


def test_modules_of_the_package_are_those_known_here() -> None:
    assert {name for name in ms_kfac.__all__ if isinstance(getattr(ms_kfac, name), types.ModuleType)} == set(
        MODULES
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_in_the_reference_and_documented(name: str) -> None:
    assert f"ms_kfac.{name}" in shown()
    owner, _, attribute = name.rpartition(".")
    value = getattr(MODULES[owner] if owner else ms_kfac, attribute)
    assert value.__doc__ and value.__doc__.strip()


def test_reference_links_only_to_pages_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (DOCS / "api").glob("*.md"):
        assert f"api/{page.name}" in navigation


def test_methods_that_people_call_are_shown() -> None:
    text = (DOCS / "api/optimizers.md").read_text(encoding="utf-8")
    listed = {name for names in re.findall(r"members: \[(.*)\]", text) for name in names.split(", ")}
    public = {
        name
        for cls in ms_kfac.KFAC.__mro__
        if cls.__name__ in ("Diagnostics", "FiniteSteps", "Introspection", "TapManager")
        for name in vars(cls)
        if not name.startswith("_")
    }
    # Called by ms_kfac.Model alone.
    assert listed == public - {"move_taps"}


@pytest.fixture(scope="module")
def markup() -> Any:
    """The hook, with a stand-in for Griffe, which only the documentation's environment has."""
    stand_in: Any = types.ModuleType("griffe")
    stand_in.Extension = stand_in.Object = object
    before = sys.modules.get("griffe")
    sys.modules["griffe"] = stand_in
    try:
        path = DOCS / "hooks/sphinx_markup.py"
        spec = importlib.util.spec_from_file_location("sphinx_markup", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules["griffe"]
        else:
            sys.modules["griffe"] = before
    return module


def test_formulas_and_references(markup: Any) -> None:
    text = "A :math:`x\n  y` of :class:`ms_kfac.KFAC` and :meth:`summary`.\n\n"
    text += ".. math::\n    a &= b \\\\\n    c &= d\n\nEnd."
    found = markup.to_markdown(text, frozenset({"ms_kfac.KFAC"}))
    assert found.startswith("A $x y$ of [`KFAC`][ms_kfac.KFAC] and `summary`.")
    assert "$$\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n$$" in found
    assert found.endswith("End.")


def test_no_markup_of_sphinx_is_left(markup: Any) -> None:
    for path in (ROOT / "ms_kfac").rglob("*.py"):
        for docstring in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.S):
            found = markup.to_markdown(docstring)
            assert ":math:`" not in found and ".. math::" not in found, path


def test_site_needs_no_other_server() -> None:
    """Formulas and styles must also work behind a firewall."""
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert settings["theme"]["font"] == "false"
    for key in ("extra_css", "extra_javascript"):
        assert all((DOCS / path).is_file() for path in settings.get(key, ()))


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "model_zoo/README.md"])
def test_links_outside_the_site_lead_somewhere(page: str) -> None:
    path = Path(ROOT / page)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
