"""Trains one case on the stand-in device: `python -m tests.gpu_backend FOLDER CASE WAY [LIBRARY]`.

Prints JSON. LIBRARY has the emulated CUDA operators; without it the package uses its fallbacks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.gpu_backend import stand_in


def main(folder: str, case: str, way: str, library: str = "") -> None:
    """Loads the stand-in libraries before MindSpore is imported."""
    read = stand_in.load(Path(folder))
    from tests.gpu_backend.train import train, use_operators_of

    if library:
        use_operators_of(Path(library))
    print(json.dumps(train(case, way, read)))


if __name__ == "__main__":
    main(*sys.argv[1:])
