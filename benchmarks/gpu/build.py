"""Compiles the CUDA kernels, where that has not been done."""

from __future__ import annotations

import subprocess
import time

from benchmarks.gpu.parts import ROOT
from benchmarks.gpu.record import Record, part_parser


def main() -> int:
    """Build.

    Returns:
        The script's status.
    """
    arguments = part_parser(__doc__).parse_args()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    found = sorted((ROOT / "ms_kfac" / "kernels").glob("_cuda*.so"))
    if found or arguments.dry_run:
        record.add("build", found=[path.name for path in found], seconds=0)
        return 0
    start = time.monotonic()
    status = subprocess.run(["bash", "scripts/build_cuda_kernels.sh"], cwd=ROOT, check=False).returncode
    record.add("build", exit_status=status, seconds=round(time.monotonic() - start, 1))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
