"""What decides when statistics are taken or inverses recomputed."""

from __future__ import annotations

from mindspore import Tensor, nn


class RefreshPolicy(nn.Cell):
    """Base of refresh policies: a Cell, so that the decision is made inside the compiled step.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor of bool, shape (1,): whether a refresh is due at this step. Step 0 must be due.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    def construct(self, step: Tensor) -> Tensor:
        """Whether a refresh is due."""
        raise TypeError(
            f"{type(self).__name__} does not say when a refresh is due: define construct(self, step)"
        )
