"""Trains one case on the stand-in device and prints JSON: `python -m tests.gpu_backend FOLDER CASE WAY`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.gpu_backend import stand_in


def main(folder: str, case: str, way: str) -> None:
    """Loads the stand-in libraries before MindSpore is imported."""
    read = stand_in.load(Path(folder))
    from tests.gpu_backend.train import train

    print(json.dumps(train(case, way, read)))


if __name__ == "__main__":
    main(*sys.argv[1:])
