from __future__ import annotations

from benchmarks.gpu.registers import read, table

LOG = """== cuda/a.cu
ptxas info    : Compiling entry function '_ZN7ms_kfac4fadeEv' for 'sm_80'
ptxas info    : Function properties for _ZN7ms_kfac4fadeEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 16704 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN7ms_kfac4fadeEv' for 'sm_90'
ptxas info    : Function properties for _ZN7ms_kfac4fadeEv
    16 bytes stack frame, 12 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
"""


def test_registers_shared_memory_and_spills_by_architecture() -> None:
    first, second = read(LOG)
    assert (first.architecture, first.registers, first.shared, first.spilled) == ("sm_80", 48, 16704, 0)
    assert (second.architecture, second.registers, second.shared, second.spilled) == ("sm_90", 40, 0, 12)
    header, row, total = table([first, second]).splitlines()
    assert header.split() == ["kernel", "sm_80", "sm_90", "shared"]
    assert row.split()[-3:] == ["48", "40+12", "16704"]
    assert total == "1 kernels, 2 with architectures; 1 spill, 12 bytes a thread at most"
