from __future__ import annotations

from benchmarks.gpu.instruction_counts import FLAGS, Instruction, main_loops, parse, table
from benchmarks.support.aot import ROOT

# One step: float32 numbers take .L_3, numbers of 16 bits take .L_2, which is longer.
LISTING = """
.text._Z8multiplyv:
	//## File "cuda/tile/tile.h", line 1
        /*0000*/                   S2R R0, SR_TID.X ;
.L_1:
        /*0010*/                   ISETP.NE.AND P0, PT, R1, RZ, PT ;
        /*0020*/              @!P0 BRA `(.L_3) ;
.L_2:
	//## File "cuda/operands/rows.h", line 2 inlined at "cuda/tile/tile.h", line 1
        /*0030*/                   LDG.E.U16 R2, desc[UR6][R4.64] ;
        /*0040*/                   IMAD.U32 R2, R2, 0x10000, RZ ;
        /*0050*/                   IMAD.U32 R2, R2, 0x10000, RZ ;
        /*0054*/                   LDG.E.U16 R3, desc[UR6][R4.64+0x2] ;
        /*0058*/                   LDG.E.U16 R3, desc[UR6][R4.64+0x4] ;
        /*005c*/                   LDG.E.U16 R3, desc[UR6][R4.64+0x6] ;
        /*0060*/                   BRA `(.L_4) ;
.L_3:
        /*0070*/                   LD.E R2, desc[UR6][R4.64] ;
        /*0074*/                   LD.E R3, desc[UR6][R4.64+0x4] ;
        /*0078*/                   LD.E R6, desc[UR6][R4.64+0x8] ;
        /*007c*/                   LD.E R7, desc[UR6][R4.64+0xc] ;
.L_4:
        /*0080*/                   FMUL R2, R2, R3 ;
        /*0090*/                   STS [R6], R2 ;
        /*0094*/                   STS [R6+0x100], R2 ;
        /*0098*/                   STS [R6+0x200], R2 ;
        /*009c*/                   STS [R6+0x300], R2 ;
{multiply}
        /*00c0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00d0*/               @P1 BRA `(.L_1) ;
        /*00e0*/                   STG.E desc[UR6][R4.64], R2 ;
        /*00f0*/                   EXIT ;
.L_9:
        /*0100*/                   BRA `(.L_9) ;
"""
TENSOR_CORES = """
        /*00a0*/                   LDS.128 R8, [R7] ;
        /*00b0*/                   HMMA.16816.F32.BF16 R12, R8.reuse, R10, R12 ;
"""
FLOAT32 = "\n".join(
    [
        ".L_5:",
        "        /*00a0*/                   LDS.64 R8, [R7] ;",
        *["        /*00b0*/                   FFMA R12, R8.reuse, R10, R12 ;"] * 32,
        "        /*00b8*/               @P2 BRA `(.L_5) ;",
    ]
)


def counts(multiply: str) -> dict[str, int]:
    (function,) = parse(LISTING.replace("{multiply}", multiply))
    (loop,) = main_loops(function)
    assert (loop.kernel, loop.files) == ("_Z8multiplyv", ("rows",))
    return dict(loop.counts)


def test_the_path_of_float32_numbers_is_counted() -> None:
    assert counts(TENSOR_CORES) == {
        "multiply": 1,
        "shared": 5,
        "generic": 4,
        "float": 1,
        "integer": 1,
        "control": 3,
    }


def test_the_inner_loop_of_float32_products_counts_eight_times() -> None:
    assert counts(FLOAT32) == {
        "multiply": 8 * 32,
        "shared": 4 + 8,
        "generic": 4,
        "float": 1,
        "integer": 1,
        "control": 3 + 8,
    }


def test_classes() -> None:
    kinds = {
        "HMMA.1688.F32.TF32": "multiply",
        "LDS.128": "shared",
        "LD.E.U16": "generic",
        "LDG.E": "global",
        "LDL": "local",
        "BSYNC": "control",
        "F2FP.BF16.F32.PACK_AB": "float",
        "F2I.TRUNC": "integer",
        "HADD2.F32": "float",
        "IMAD.WIDE": "integer",
        "LDC.64": "integer",
    }
    assert {operation: Instruction(operation).kind for operation in kinds} == kinds


def test_table_has_a_row_per_loop() -> None:
    (function,) = parse(LISTING.replace("{multiply}", TENSOR_CORES))
    header, row = table(main_loops(function)).splitlines()
    assert header.split()[-3:] == ["integer", "all", "longest"]
    assert row.split()[-3:] == ["1", "15", "15"]


def test_code_without_a_main_loop_has_no_row() -> None:
    (function,) = parse(LISTING.replace("{multiply}", ""))
    assert main_loops(function) == []


def test_flags_are_those_of_the_build() -> None:
    build = (ROOT / "scripts" / "build_cuda_kernels.sh").read_text(encoding="utf-8")
    assert [flag for flag in FLAGS if flag not in build] == []
