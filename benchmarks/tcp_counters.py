"""Byte counters of this process's TCP connections, read from the Linux kernel."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# In struct tcp_info of linux/tcp.h: tcpi_bytes_acked, tcpi_bytes_received.
_COUNTS = struct.Struct("QQ")
_COUNTS_OFFSET = 120
_TCP_INFO_BYTES = 256


@dataclass(frozen=True)
class ByteCounts:
    """Byte counts of the open connections.

    Attributes:
        sent: acknowledged bytes sent on the connections that this process opened.
        answered: acknowledged bytes sent on the connections that other processes opened.
    """

    sent: int
    answered: int

    def since(self, earlier: ByteCounts) -> ByteCounts:
        """The difference to an earlier reading of the same connections."""
        return ByteCounts(self.sent - earlier.sent, self.answered - earlier.answered)


def read_byte_counts() -> ByteCounts:
    """Reads the counters of all TCP connections of this process.

    Returns:
        The sums over all connections.
    """
    listening: set[int] = set()
    connections: list[tuple[int, int]] = []
    for number in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", number)
        # The descriptor of the directory listing is already closed.
        if not link.is_symlink() or not os.readlink(link).startswith("socket:"):
            continue
        with socket.socket(fileno=os.dup(int(number))) as found:
            if found.family not in {socket.AF_INET, socket.AF_INET6} or found.type != socket.SOCK_STREAM:
                continue
            port = found.getsockname()[1]
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.add(port)
                continue
            info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            confirmed, _ = _COUNTS.unpack_from(info, _COUNTS_OFFSET)
            connections.append((port, confirmed))
    return ByteCounts(
        sent=sum(count for port, count in connections if port not in listening),
        answered=sum(count for port, count in connections if port in listening),
    )
