"""Instructions per step of the main loops of a CUDA kernel source, from its machine code.

    python -m benchmarks.gpu.instruction_counts ms_kfac/kernels/cuda/operators/kronecker_statistics.cu

The main loop of a tile multiplies operands of depth ``kDepth`` per step and has a barrier. A step takes one
of several paths. The usual one is counted: the shortest one that loads, stores and multiplies all elements of
two different float32 operands.

Needs nvcc and nvdisasm of the same or a newer toolkit, but no GPU.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.registers import readable

# Those of scripts/build_cuda_kernels.sh that change machine code. -lineinfo does not change it.
FLAGS = ("-x", "cu", "-std=c++17", "-O3", "-D_GLIBCXX_USE_CXX11_ABI=0")
DEFINITIONS = ('-DMS_KFAC_SOURCES=""', '-DMS_KFAC_ARCHITECTURES=""')
# In float32 an inner loop multiplies two of the 16 depths of a step.
INNER_STEPS = 8

CLASSES = {
    "multiply": r"HMMA|FFMA",
    "shared": r"LDS|STS|LDSM|ATOMS",
    "generic": r"LD|ST",
    "global": r"LDG|STG",
    "local": r"LDL|STL",
    "control": r"BRA|BRX|BSSY|BSYNC|BAR|BREAK|WARPSYNC|CALL|RET|EXIT|NOP|YIELD|NANOSLEEP",
    "float": r"F(?!2I|LO)\w+|H(?!MMA)\w+|D(?!EPBAR)\w+|I2F\w*|MUFU",
}
INTEGER = "integer"


@dataclass
class Instruction:
    """One machine instruction.

    Attributes:
        operation: with modifiers, such as "LDG.E.U16".
        guarded: whether a predicate guards it.
        target: label of a branch, or "".
        file: name of the source file that it comes from, or "".
    """

    operation: str
    guarded: bool = False
    target: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The operation without modifiers."""
        return self.operation.split(".", 1)[0]

    @property
    def kind(self) -> str:
        """The name of its class."""
        for kind, names in CLASSES.items():
            if re.fullmatch(names, self.name):
                return kind
        return INTEGER


@dataclass
class Function:
    """One kernel: its mangled name, its instructions, and the index that each label stands for."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass
class Loop:
    """A main loop of a kernel.

    Attributes:
        kernel: its mangled name.
        files: the source files of the loop's loads.
        counts: instructions of a usual step, by class.
        longest: instructions of the longest step, such as at a border of the matrix.
    """

    kernel: str
    files: tuple[str, ...]
    counts: Counter[str]
    longest: int


def parse(listing: str) -> list[Function]:
    """Reads the listing of ``nvdisasm -c -g``.

    Args:
        listing: the machine code of one or several kernels.

    Returns:
        The kernels in their order.
    """
    functions: list[Function] = []
    file = ""
    for line in listing.splitlines():
        if section := re.match(r"\.text\.(\S+):", line):
            functions.append(Function(section[1]))
        elif source := re.match(r'\s*//## File "([^"]+)"', line):
            file = Path(source[1]).stem
        elif not functions:
            continue
        elif label := re.match(r"(\.L\w+):", line):
            functions[-1].labels[label[1]] = len(functions[-1].instructions)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z]\S*)(.*)", line):
            target = re.search(r"`\((\.L\w+)\)", code[3])
            functions[-1].instructions.append(
                Instruction(code[2].rstrip(";"), bool(code[1]), target[1] if target else "", file)
            )
    return functions


def main_loops(function: Function) -> list[Loop]:
    """Finds the main loops of a kernel.

    Args:
        function: the kernel.

    Returns:
        The smallest loops that store operands to shared memory and multiply them, in the order of the code.
    """
    code = function.instructions
    followers = [list(_followers(function, index)) for index in range(len(code))]
    before: list[list[int]] = [[] for _ in code]
    for index, following in enumerate(followers):
        for other in following:
            before[other].append(index)
    bodies: dict[int, set[int]] = {}
    for index, following in enumerate(followers):
        for header in following:
            if header <= index:
                bodies.setdefault(header, set()).update(_body(before, header, index))
    main = {header: body for header, body in bodies.items() if _multiplies([code[i].name for i in body])}
    smallest = {h: b for h, b in main.items() if not any(o < b for o in main.values())}
    loops = []
    for header, body in sorted(smallest.items()):
        inner = [b for b in bodies.values() if b < body and any(code[i].name == "FFMA" for i in b)]
        weights = {i: INNER_STEPS if any(i in b for b in inner) else 1 for i in body}
        path, longest = _paths(function, followers, header, body, weights)
        counts: Counter[str] = Counter()
        for index in path:
            counts[code[index].kind] += weights[index]
        loads = Counter(code[i].file for i in body if code[i].kind in ("generic", "global"))
        loops.append(Loop(function.name, tuple(sorted(filter(None, loads))), counts, longest))
    return loops


def _multiplies(names: list[str]) -> bool:
    """Whether a loop has products, a barrier, and a thread's elements of at least one operand to store."""
    products = "HMMA" in names or names.count("FFMA") >= 32
    return products and "BAR" in names and names.count("STS") >= 4


def _followers(function: Function, index: int) -> Iterator[int]:
    one = function.instructions[index]
    leaves = one.name == "BRA" and one.target in function.labels
    if leaves:
        yield function.labels[one.target]
    ends = (leaves or one.name in ("EXIT", "RET")) and not one.guarded
    if not ends and index + 1 < len(function.instructions):
        yield index + 1


def _body(before: list[list[int]], header: int, end: int) -> set[int]:
    """Returns the natural loop of the branch from `end` back to `header`."""
    body, left = {header}, [end]
    while left:
        index = left.pop()
        if index not in body:
            body.add(index)
            left.extend(before[index])
    return body


def _order(followers: list[list[int]], header: int, inside: set[int]) -> list[int]:
    """Returns the instructions of a step, each after its followers. Branches backwards are left out."""
    order: list[int] = []
    found: set[int] = set()
    stack = [(header, False)]
    while stack:
        index, done = stack.pop()
        if done:
            order.append(index)
        elif index not in found:
            found.add(index)
            stack.append((index, True))
            stack.extend((i, False) for i in followers[index] if i in inside and i != header)
    return order


def _paths(
    function: Function, followers: list[list[int]], header: int, body: set[int], weights: dict[int, int]
) -> tuple[list[int], int]:
    """Finds paths of a step without 16-bit loads.

    Returns:
        The shortest path that multiplies, stores all elements to shared memory, and loads at least as many;
        the length of the longest path.
    """
    code = function.instructions
    loads = {i for i in body if code[i].kind in ("generic", "global")}
    inside = body - {i for i in loads if "U16" in code[i].operation}
    order = _order(followers, header, inside)
    place = {index: number for number, index in enumerate(order)}

    def following(index: int) -> list[int]:
        return [i for i in followers[index] if i in place and i != header and place[i] < place[index]]

    longest: dict[int, int] = {}
    for index in order:
        ends = [0] * (header in followers[index]) + [longest[i] for i in following(index) if i in longest]
        if ends:
            longest[index] = max(ends) + weights[index]

    needed = max(sum(code[i].name == "STS" for i in inside), 1)
    # By instruction and number of loads still needed: the cost to the end of the step, and what follows.
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for index in order:
        # Work outweighs any length.
        works = code[index].name == "STS" or code[index].kind == "multiply"
        cost = weights[index] - 10**6 * works
        for count in range(needed + 1):
            left = max(count - (index in loads), 0)
            ends = [(0, -1)] * (header in followers[index] and left == 0)
            ends += [(best[i, left][0], i) for i in following(index) if (i, left) in best]
            if ends:
                rest, after = min(ends)
                best[index, count] = (rest + cost, after)
    count = max((count for index, count in best if index == header), default=0)
    path, index = [], header
    while index >= 0:
        path.append(index)
        following_one = best[index, count][1]
        count = max(count - (index in loads), 0)
        index = following_one
    return path, longest[header]


def table(loops: list[Loop]) -> str:
    """Formats a table with one row per main loop.

    Args:
        loops: the results of :func:`main_loops`.

    Returns:
        The table: one column per class of instructions.
    """
    kinds = [*CLASSES, INTEGER]
    names = readable(loop.kernel for loop in loops)
    rows = [["kernel", "loads of", *kinds, "all", "longest"]]
    for loop in loops:
        numbers = [str(loop.counts[kind]) for kind in kinds]
        rows.append(
            [names[loop.kernel], "+".join(loop.files), *numbers, str(loop.counts.total()), str(loop.longest)]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i > 1 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    )


def disassemble(source: Path, architecture: str, nvcc: str, nvdisasm: str) -> str:
    """Compiles a kernel source for one architecture.

    Args:
        source: a ``.cu`` file of the package's kernels.
        architecture: such as "90".
        nvcc: the compiler.
        nvdisasm: the disassembler.

    Returns:
        The listing of its machine code.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder) / "kernels.cubin")
        compiler = [nvcc, *FLAGS, *DEFINITIONS, "-lineinfo", f"-arch=sm_{architecture}", "-cubin"]
        subprocess.run([*compiler, str(source), "-o", cubin], check=True)
        finished = subprocess.run([nvdisasm, "-c", "-g", cubin], check=True, capture_output=True, text=True)
    return finished.stdout


def main() -> None:
    """Prints the counts of the main loops of kernel sources."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "sources", type=Path, nargs="+", help="kernel sources (.cu), or cubins with line numbers"
    )
    parser.add_argument("--architectures", nargs="+", default=["80", "90"], metavar="NUMBER")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvdisasm", default="nvdisasm")
    arguments = parser.parse_args()
    for tool in (arguments.nvcc, arguments.nvdisasm):
        if shutil.which(tool) is None:
            parser.error(f"{tool} was not found")
    for source in arguments.sources:
        for architecture in arguments.architectures:
            listing = disassemble(source, architecture, arguments.nvcc, arguments.nvdisasm)
            print(f"{source.name}, sm_{architecture}")
            print(table([loop for function in parse(listing) for loop in main_loops(function)]))


if __name__ == "__main__":
    main()
