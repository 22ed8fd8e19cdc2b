"""What the package says of its operators."""

from __future__ import annotations

import importlib

import ms_kfac
from ms_kfac.kernels.catalogue import CATALOGUE


def test_status_names_every_operator_and_its_form() -> None:
    library, *rows = ms_kfac.kernels.status().splitlines()
    # Other tests of this process may have made kernels complain.
    rows = [row for row in rows if not row.startswith(("warning: ", "last error: "))]
    # What kernels have warned of in tests before this one.
    rows = [row for row in rows if not row.startswith("warning: ")]
    assert library.startswith("library ") or library.startswith("no native library: ")
    assert [row.split()[0] for row in rows] == list(CATALOGUE)
    for row in rows:
        name, form, *reason = row.split()
        importlib.import_module(f"ms_kfac.ops.{name}")
        native = CATALOGUE[name] is not None and library.startswith("library ")
        assert form == ("native" if native else "composed")
        assert reason or native
