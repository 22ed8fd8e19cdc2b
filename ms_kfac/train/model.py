"""mindspore.train.Model with this package's training step and averaged weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mindspore import nn
from mindspore.train import Model as MindSporeModel

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.train.one_step import TrainOneStepCell
from ms_kfac.train.sampled_targets import SampleTargets


class Model(MindSporeModel):
    """``mindspore.train.Model`` that trains by :class:`ms_kfac.TrainOneStepCell`.

    It serves ``fisher="sampled"`` and ``damping=LevenbergMarquardt(...)``, and where the optimizer averages
    the weights (``averaging=``) it evaluates and predicts with the averages. Everything else is as in
    ``mindspore.train.Model``, with the same arguments.

    Loss scaling: none, or ``FixedLossScaleManager(scale, drop_overflow_update=False)`` with the same
    ``loss_scale`` given to the optimizer.

    Args:
        network: the network, with its loss where ``loss_fn`` is None.
        loss_fn: the loss function.
        optimizer: any ``nn.Optimizer``.
        sample_targets: as of :class:`ms_kfac.TrainOneStepCell`. Default: None.
        **arguments: ``metrics``, ``eval_network``, ``eval_indexes``, ``amp_level``, ``boost_level`` and the
            further keyword arguments of ``mindspore.train.Model``.

    Raises:
        TypeError: if targets can't be drawn for the loss.
        ValueError: if the optimizer needs our training cell and boost, gradient accumulation or a loss scale
            manager with an update cell of its own would put another in its place.

    Platforms: CPU. GPU and Ascend with built-in operators: not run there yet.

    Examples:
        >>> import ms_kfac
        >>> from mindspore import nn
        >>> net = nn.Dense(8, 4)
        >>> optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", averaging=0.99)
        >>> model = ms_kfac.Model(net, nn.CrossEntropyLoss(), optimizer, metrics={"accuracy"})
    """

    def __init__(
        self,
        network: nn.Cell,
        loss_fn: nn.Cell | None = None,
        optimizer: nn.Optimizer | None = None,
        metrics: Any = None,
        eval_network: nn.Cell | None = None,
        eval_indexes: Any = None,
        amp_level: str = "O0",
        boost_level: str = "O0",
        *,
        sample_targets: SampleTargets = None,
        **arguments: Any,
    ) -> None:
        self._sample_targets = sample_targets
        super().__init__(
            network,
            loss_fn,
            optimizer,
            metrics,
            eval_network,
            eval_indexes,
            amp_level,
            boost_level,
            **arguments,
        )

    def _build_train_network(self) -> nn.Cell:
        built = super()._build_train_network()
        optimizer = self._optimizer
        if optimizer is None:
            return built
        if type(built) is nn.TrainOneStepCell:
            sens = built.sens if built.sense_flag else None
            cell = TrainOneStepCell(built.network, optimizer, sens, sample_targets=self._sample_targets)
            cell.set_train()
            if built.get_inputs() is not None:
                cell.set_inputs(*built.get_inputs())
            return cell
        if isinstance(optimizer, SecondOrderOptimizer) and optimizer.needs_train_cell:
            raise ValueError(
                "fisher='sampled' and damping=LevenbergMarquardt(...) train by ms_kfac.TrainOneStepCell; "
                f"with these arguments mindspore.train.Model trains by {type(built).__name__}. Accepted are "
                "boost_level='O0', no gradient accumulation, and loss_scale_manager=None or "
                "FixedLossScaleManager(drop_overflow_update=False)"
            )
        return built

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        optimizer = self._optimizer
        if isinstance(optimizer, SecondOrderOptimizer) and optimizer.averages:
            return optimizer.averaged_weights()
        return nullcontext()

    def eval(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate, as ``mindspore.train.Model.eval`` does, with the averaged weights where there are any.

        Args:
            *arguments: as there.
            **options: as there.

        Returns:
            The metrics by name.
        """
        with self._evaluated_weights():
            return super().eval(*arguments, **options)

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """Predict, as ``mindspore.train.Model.predict`` does, with the averaged weights where there are any.

        Args:
            *arguments: as there.
            **options: as there.

        Returns:
            The network's outputs.
        """
        with self._evaluated_weights():
            return super().predict(*arguments, **options)

    def _eval_in_fit(self, *arguments: Any, **options: Any) -> Any:
        with self._evaluated_weights():
            return super()._eval_in_fit(*arguments, **options)
