"""The options of a run that are not part of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.data.shards import Shard


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    Attributes:
        name: the run's name.
        data_dir: the folder of the recipe's data; not needed for the digits and stdlib.
        output: the folder to write to.
        device: "CPU", "GPU" or "Ascend".
        log_every: steps between two step objects in metrics.jsonl.
        monitor_every: steps between two curvature objects in metrics.jsonl; None writes none.
        monitor_eigenvalues: whether they hold the extreme eigenvalues of the factors.
        progress: whether a progress bar is shown on a terminal.
        checkpoint_every: the checkpoint interval; None writes no checkpoints.
        keep: how many checkpoints are kept.
        resume: whether to continue the run in `output` from its newest checkpoint.
        overwrite: whether a new run replaces another one in `output`.
        shard: this process's rank and the number of processes.
    """

    name: str
    data_dir: Path | None
    output: Path
    device: str = "CPU"
    log_every: int = 10
    monitor_every: int | None = None
    monitor_eigenvalues: bool = False
    progress: bool = True
    checkpoint_every: CheckpointInterval | None = None
    keep: int = 2
    resume: bool = False
    overwrite: bool = False
    shard: Shard = Shard()  # noqa: RUF009

    def stored(self) -> dict[str, Any]:
        """The options that a checkpoint stores for a resumed run.

        Returns:
            JSON values, for `resumed`.
        """
        return {
            "name": self.name,
            "data_dir": None if self.data_dir is None else str(self.data_dir.resolve()),
            "device": self.device,
            "log_every": self.log_every,
            "monitor_every": self.monitor_every,
            "monitor_eigenvalues": self.monitor_eigenvalues,
            "checkpoint_every": None if self.checkpoint_every is None else str(self.checkpoint_every),
            "keep": self.keep,
        }


def resumed(stored: dict[str, Any], output: Path, **given: Any) -> RunOptions:
    """The options of a resumed run.

    Args:
        stored: the result of `RunOptions.stored`.
        output: the run's folder.
        **given: options of the command line; None if not given.

    Returns:
        The stored options, overridden by the given ones.
    """
    options = dict(stored)
    if options["data_dir"] is not None:
        options["data_dir"] = Path(options["data_dir"])
    if options["checkpoint_every"] is not None:
        options["checkpoint_every"] = CheckpointInterval.parse(options["checkpoint_every"])
    options.update({key: value for key, value in given.items() if value is not None})
    return RunOptions(output=output, resume=True, **options)
