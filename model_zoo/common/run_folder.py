"""The folder of a run: who owns it, what a start removes from it, and what a finished run leaves in it.

run.json         the recipe, the options, the versions and the machine
metrics.jsonl    one object per log interval and per epoch
checkpoints/     see checkpoint/files.py
network.ckpt     the network at the end of the run
curves.png       the curves of metrics.jsonl
manifest.sha256  the checksums of network.ckpt and run.json; the run has ended
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import nn

from model_zoo.common.checkpoint.files import (
    NETWORK_FILE,
    RUN_FILE,
    checkpoints_folder,
    clear_newer,
    remove_all_checkpoints,
)
from model_zoo.common.checkpoint.manifest import MANIFEST_FILE, write_manifest
from model_zoo.common.checkpoint.resume import how_to_resume
from model_zoo.common.command_line import describe_os_error
from model_zoo.common.curves import CURVES_FILE
from model_zoo.common.data.shards import Shard
from model_zoo.common.durable_files import replacing, sync
from model_zoo.common.errors import RunFailedError
from model_zoo.common.run_description import write_description
from model_zoo.common.run_lock import locked
from model_zoo.common.run_options import RunOptions


def owned(options: RunOptions) -> contextlib.AbstractContextManager[None]:
    """Locks the folder of a run; rank 0 does so for all processes.

    Args:
        options: the run options.

    Returns:
        A context in which no other run writes to the folder.

    Raises:
        UsageError: another run writes to the folder.
    """
    return locked(options.output) if options.shard.rank == 0 else contextlib.nullcontext()


def begin(options: RunOptions, checkpoint: Path | None, description: dict[str, Any], trains: bool) -> None:
    """Removes what the run replaces and writes run.json. Call it when everything of a resumed run is read.

    Args:
        options: the run options.
        checkpoint: the checkpoint that the process has resumed from; None for a start from the beginning.
        description: the content of run.json.
        trains: whether the run has steps left. Otherwise its network stays until it is written again.
    """
    if checkpoint is not None:
        clear_newer(checkpoint)
    if options.shard.rank > 0:
        return
    with replacing(options.output / RUN_FILE) as new:
        write_description(new, description)
        sync(new)
        # A full disk would have been told by now.
        for name in (MANIFEST_FILE, NETWORK_FILE, CURVES_FILE) if trains else (MANIFEST_FILE,):
            (options.output / name).unlink(missing_ok=True)
        if checkpoint is None:
            # No process writes its first checkpoint before rank 0 has taken a step.
            remove_all_checkpoints(options.output)
    if options.checkpoint_every is not None:
        # Their number tells the number of processes, also if a run is killed in its first checkpoint.
        for rank in range(options.shard.size):
            folder = checkpoints_folder(options.output, Shard(rank, options.shard.size))
            folder.mkdir(parents=True, exist_ok=True)


def finish(options: RunOptions, network: nn.Cell, description: dict[str, Any]) -> None:
    """Writes the network, run.json and their checksums.

    Args:
        options: the run options.
        network: the plain network, with the weights to write.
        description: the content of run.json.
    """
    with replacing(options.output / NETWORK_FILE) as file:
        ms.save_checkpoint(network, str(file))
    with replacing(options.output / RUN_FILE) as file:
        write_description(file, description)
    write_manifest(options.output, [NETWORK_FILE, RUN_FILE])


@contextlib.contextmanager
def failures_told(options: RunOptions) -> Iterator[None]:
    """Turns errors of the operating system, such as a full disk, into one sentence with the way to resume.

    Args:
        options: the run options.

    Yields:
        Nothing.

    Raises:
        RunFailedError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise RunFailedError(
            f"training has stopped: {describe_os_error(error)}; {how_to_resume(options)}."
        ) from error
