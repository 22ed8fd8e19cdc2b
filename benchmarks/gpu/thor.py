"""Steps of ``mindspore.nn.thor`` over ``nn.Momentum``, interleaved.

The model comes from ``ConvertModelUtils``. Its network is called as ``ModelThor`` does in sink mode: steps
that recompute the inverses set the flag ``thor`` and use a separate phase; the other steps do not.
"""

from __future__ import annotations

import time

import mindspore as ms
from mindspore import nn

from benchmarks.gpu.bring_up import SMALL_TASKS, TASKS, Task, in_turn, seconds_of_step, start
from benchmarks.gpu.record import Record, part_parser
from benchmarks.gpu.timing import quartiles
from benchmarks.gpu.training import build_step

FREQUENCY = 100
ORDINARY_ROUNDS, REFRESH_ROUNDS = 100, 10


class ThorSteps:
    """The two steps of ``nn.thor``.

    Args:
        task: the network and its batches.
    """

    def __init__(self, task: Task) -> None:
        ms.set_seed(1)
        network = task.build()
        loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        schedule = ms.Tensor([0.01] * 1000, ms.float32)
        damping = ms.Tensor([0.1] * 1000, ms.float32)
        optimizer = nn.thor(network, schedule, damping, 0.9, batch_size=task.images[0], frequency=FREQUENCY)
        model = ms.train.Model(network, loss_fn=loss, optimizer=optimizer)
        converted = ms.train.ConvertModelUtils.convert_to_thor_model(
            model, network, loss_fn=loss, optimizer=optimizer
        )
        self.step = converted.train_network
        self.step.set_train()
        self.turns = in_turn(task.batches())
        self.compiled = {True: False, False: False}

    def take(self, refresh: bool) -> float:
        """Takes one step.

        Args:
            refresh: whether to recompute the inverses.

        Returns:
            The seconds of the step.
        """
        if not self.compiled[refresh]:
            self.step.add_flags_recursive(thor=refresh)
            self.compiled[refresh] = True
        self.step.phase = "train0" if refresh else "train1"
        return seconds_of_step(self.step, self.turns)


def main() -> None:
    """Measures one network."""
    parser = part_parser(__doc__)
    parser.add_argument("--network", choices=tuple(TASKS), required=True)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    record = Record(arguments.record, dry_run=arguments.dry_run)
    start(record)
    task = (SMALL_TASKS if arguments.dry_run else TASKS)[arguments.network]
    with record.attempt("nn.thor"):
        thor = ThorSteps(task)
        momentum = build_step("momentum", task)
        if arguments.dry_run:
            record.add("not run", message="nn.thor is there, but has no kernels for the CPU")
            return
        # The refresh first, because the other step reads its inverses.
        first = {"refresh": thor.take(True), "ordinary": thor.take(False), "momentum": momentum()}
        record.add("first steps", seconds=first)
        for refresh, rounds in ((False, ORDINARY_ROUNDS), (True, REFRESH_ROUNDS)):
            own: list[float] = []
            other: list[float] = []
            for _ in range(rounds):
                if time.monotonic() > end:
                    break
                own.append(thor.take(refresh))
                other.append(momentum())
            if own:
                record.add(
                    "thor steps",
                    network=arguments.network,
                    kind="refresh" if refresh else "ordinary",
                    quartiles_seconds=quartiles(own),
                    paired_ratio_quartiles=quartiles([a / b for a, b in zip(own, other)]),
                    raw_seconds=own,
                    raw_momentum_seconds=other,
                )


if __name__ == "__main__":
    main()
