"""Programs that may not warn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent() -> Iterator[None]:
    """Raise every warning of the block as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
