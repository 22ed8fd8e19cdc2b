"""Calls of one kernel on different streams: a call waits for the one before, whose counters it uses."""

from __future__ import annotations

import numpy as np

from benchmarks.support.aot import AotLibrary, AotOperator
from tests.kernels.cuda.test_kronecker_statistics import Statistics
from tests.support.cuda_statistics import LAYERS, PERIOD


def submit_by_turns(operator: AotOperator, calls: int) -> None:
    """Submits the calls on two streams of a GPU without waiting in between."""
    import torch

    streams = [torch.cuda.Stream() for _ in range(2)]
    tensors = [torch.from_numpy(array).cuda() for array in operator.arrays]
    torch.cuda.synchronize()
    for call in range(calls):
        operator.submit(tensors, streams[call % 2].cuda_stream)
    torch.cuda.synchronize()
    for array, tensor in zip(operator.arrays, tensors):
        array[...] = tensor.cpu().numpy().reshape(array.shape)


def submit_on_the_emulator(operator: AotOperator) -> None:
    """Checks which calls wait. Streams are only compared."""
    waits = operator.library.library.emulator_synchronizations
    before = waits()
    for stream, expected in ((16, 0), (16, 0), (32, 1), (32, 1), (16, 2)):
        operator.submit(operator.arrays, stream)
        assert waits() - before == expected


def test_a_call_on_another_stream_waits(operators: AotLibrary, rng: np.random.Generator) -> None:
    calls = 5
    case = Statistics(LAYERS["conv_reduce"], rng)
    case.record[PERIOD] = calls
    operator = case.operator(operators)
    if operators.device == "cpu":
        submit_on_the_emulator(operator)
    else:
        submit_by_turns(operator, calls)
    for side in (0, 1):
        case.check(side, "float32", calls)
    case.check_record([case.weight(0), case.weight(1)], calls)
