"""What nvcc has put into a shared library for the GPU, read without cuobjdump, which is often not there.

A section of the file holds containers, each with a header of 16 bytes (magic, version, length of the header,
length of what follows) and entries. An entry begins with its kind, the length of its header at byte 4, the
length of its content at byte 8, and the architecture at byte 28.
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = 0xBA55ED50
PTX, MACHINE_CODE = 1, 2


def entries(library: Path) -> list[tuple[int, int]]:
    """Kind and architecture of everything for the GPU in a shared library."""
    data = library.read_bytes()
    found = []
    start = data.find(struct.pack("<I", MAGIC))
    while start >= 0:
        _, _, header, size = struct.unpack_from("<IHHQ", data, start)
        position = start + header
        end = position + size
        while position < end:
            kind, _, length, content = struct.unpack_from("<HHIQ", data, position)
            (architecture,) = struct.unpack_from("<I", data, position + 28)
            found.append((kind, architecture))
            position += length + content
        start = data.find(struct.pack("<I", MAGIC), end)
    return found
