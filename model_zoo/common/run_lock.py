"""The lock of a folder that only one process may write to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from model_zoo.common.errors import UsageError

LOCK_FILE = "run.lock"

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Zombies, which wait for their parent, are no longer running.
_DEAD = "ZX"
# Cluster file systems that are mounted without file locks answer with these.
_NO_FILE_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def process_start(pid: int) -> str:
    """When a process began: the boot and the clock ticks since then. "" if there is no such process."""
    if not _BOOT.exists():
        # Not Linux: a later process with the same ID can't be told apart.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return "at an unknown time"
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name of the program, in parentheses, may hold spaces. State and start are fields 3 and 22.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in _DEAD else f"{_BOOT.read_text(encoding='ascii').strip()} {fields[19]}"


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        pid: its process ID.
        host: the name of its machine.
        started: its start, which tells it from a later process with the same ID.
    """

    pid: int
    host: str
    started: str

    @classmethod
    def this_process(cls) -> Owner:
        """The calling process."""
        return cls(os.getpid(), socket.gethostname(), process_start(os.getpid()))

    def is_alive(self) -> bool:
        """Whether the process runs on this machine."""
        return self.host == socket.gethostname() and self.started == process_start(self.pid) != ""


def _owner(content: bytes) -> Owner | None:
    try:
        return Owner(**json.loads(content.decode("utf-8", errors="replace")))
    except (ValueError, TypeError, RecursionError):
        # An owner that was killed while it wrote the lock.
        return None


def _content(path: Path) -> bytes:
    """The content of a lock; empty if there is none, or if its owner has just removed it."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def _refuse(folder: Path, owner: Owner) -> None:
    """Raises UsageError unless the lock of `owner` is stale."""
    if owner.is_alive():
        raise UsageError(f"{folder} is in use by process {owner.pid}: wait for it, or choose another folder.")
    if owner.host != socket.gethostname():
        raise UsageError(
            f"{folder} is in use by process {owner.pid} on {owner.host}: if that process has ended, remove "
            f"{folder / LOCK_FILE}."
        )


def refuse_if_locked(folder: Path) -> None:
    """Checks that no other process writes to a folder, without locking it.

    Args:
        folder: the folder, which may not exist.

    Raises:
        UsageError: a process on this machine or on another one holds the lock.
    """
    owner = _owner(_content(folder / LOCK_FILE))
    if owner is not None:
        _refuse(folder, owner)


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[int]:
    """Opens the lock file and keeps other processes from deciding about it at the same time."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_FILE_LOCKS:
                    raise
            # The owner may have removed the file between open and flock.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                yield descriptor
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it does not exist, inside a `with` block.

    The lock of a process that has died is taken over with one sentence on standard output.

    Args:
        folder: the folder.

    Yields:
        Nothing.

    Raises:
        UsageError: another process holds the lock.
        OSError: the lock can't be written.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path, own = folder / LOCK_FILE, Owner.this_process()
    with _guarded(path) as descriptor:
        content = os.pread(descriptor, 4096, 0)
        owner = _owner(content)
        if owner is not None:
            _refuse(folder, owner)
        if content:
            process = "an unknown process" if owner is None else f"process {owner.pid}"
            print(f"{folder} was locked by {process}, which has ended: the lock is taken over")
        os.ftruncate(descriptor, 0)
        new = json.dumps(asdict(own)).encode("utf-8")
        if os.pwrite(descriptor, new, 0) < len(new):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    try:
        yield
    finally:
        # Whoever removed the lock by hand may have given it to another process.
        if _owner(_content(path)) == own:
            path.unlink()
        # A command that refuses its input leaves no empty folders.
        with contextlib.suppress(OSError):
            for empty in created:
                empty.rmdir()
