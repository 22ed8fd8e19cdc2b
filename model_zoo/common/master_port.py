"""Finds a free port, or checks a given one, before workers wait for a scheduler that can't listen there.

scripts/run_distributed_train.sh calls `main` with ADDRESS PORT MACHINES. PORT 0 is any free port.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence

from model_zoo.common.command_line import run_command
from model_zoo.common.errors import UsageError
from model_zoo.common.interruption import StopSignals


def listening_port(address: str, port: int, machines: int = 1) -> int:
    """The port at which the scheduler can listen.

    Args:
        address: the value of --master-addr.
        port: the value of --master-port; 0 for any free port.
        machines: the number of machines.

    Returns:
        The port. On one of several machines, an address of another one is not checked.

    Raises:
        UsageError: the address is unknown or not one of this machine, or the port is in use.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a host"
        raise UsageError(f"--master-addr {address} can't be found: {reason}.") from error
    with socket.socket(family, kind) as listener:
        # As MindSpore does; a port whose last connection ended a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"--master-port {port} of {address} can't be used: {error.strerror}; choose another one."
                ) from error
            if machines == 1:
                raise UsageError(f"--master-addr {address} is not an address of this machine.") from error
            return port
        return int(listener.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the port; the exit status is 2 if there is none."""
    address, port, machines = sys.argv[1:] if arguments is None else arguments

    def print_port(_: StopSignals) -> int:
        print(listening_port(address, int(port), int(machines)))
        return 0

    return run_command(print_port)
