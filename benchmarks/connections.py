"""Bytes that this process's TCP connections have carried, as Linux counts them."""

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
class Carried:
    """Bytes over connections that are open.

    Attributes:
        sent: over those that this process opened, to the other end, as far as the other end has confirmed.
        answered: over those that others opened to this process, to the other end.
    """

    sent: int
    answered: int

    def since(self, earlier: Carried) -> Carried:
        """What has been carried between two looks at the same connections."""
        return Carried(self.sent - earlier.sent, self.answered - earlier.answered)


def carried() -> Carried:
    """Looks at all TCP connections of this process.

    Returns:
        The sums over them.
    """
    listening: set[int] = set()
    connections: list[tuple[int, int]] = []
    for number in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", number)
        # The listing's own descriptor is closed by now.
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
    return Carried(
        sent=sum(count for port, count in connections if port not in listening),
        answered=sum(count for port, count in connections if port in listening),
    )
