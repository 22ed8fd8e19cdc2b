"""What the command line says of a run beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.data.shards import Shard


@dataclass(frozen=True)
class RunOptions:
    """Where and how a recipe is trained.

    Attributes:
        name: the run's name.
        data_dir: the folder of the recipe's data; the digits need none.
        output: the folder to write to.
        device: "CPU", "GPU" or "Ascend".
        log_every: steps between two step objects of metrics.jsonl.
        progress: whether a bar is drawn when the screen is a terminal.
        checkpoint_every: how often a checkpoint is written, besides at the end; None for none.
        keep: how many checkpoints stay.
        resume: whether the run in `output` goes on from its newest checkpoint.
        shard: this process among those that train together.
    """

    name: str
    data_dir: Path | None
    output: Path
    device: str = "CPU"
    log_every: int = 10
    progress: bool = True
    checkpoint_every: CheckpointInterval | None = None
    keep: int = 2
    resume: bool = False
    shard: Shard = Shard()  # noqa: RUF009

    def stored(self) -> dict[str, Any]:
        """What a checkpoint keeps of the options, so that a resumed run goes on with them.

        Returns:
            Texts and numbers, for `resumed`.
        """
        return {
            "name": self.name,
            "data_dir": None if self.data_dir is None else str(self.data_dir.resolve()),
            "device": self.device,
            "log_every": self.log_every,
            "checkpoint_every": None if self.checkpoint_every is None else str(self.checkpoint_every),
            "keep": self.keep,
        }


def resumed(stored: dict[str, Any], output: Path, **given: Any) -> RunOptions:
    """The options of a run that is resumed.

    Args:
        stored: what `RunOptions.stored` gave.
        output: the run's folder.
        **given: options of the command line; None where it does not say.

    Returns:
        The stored options, with those given in their place.
    """
    options = dict(stored)
    if options["data_dir"] is not None:
        options["data_dir"] = Path(options["data_dir"])
    if options["checkpoint_every"] is not None:
        options["checkpoint_every"] = CheckpointInterval.parse(options["checkpoint_every"])
    options.update({key: value for key, value in given.items() if value is not None})
    return RunOptions(output=output, resume=True, **options)
