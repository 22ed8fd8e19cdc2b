"""A mindspore.train.Model that uses this package's training cell and averaged weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mindspore import nn
from mindspore.amp import DynamicLossScaleManager
from mindspore.train import Model as MindSporeModel

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.train.one_step import TrainOneStepCell
from ms_kfac.train.sampled_targets import SampleTargets
from ms_kfac.values import check_count


class Model(MindSporeModel):
    """A ``mindspore.train.Model`` that trains with :class:`ms_kfac.TrainOneStepCell`.

    It supports ``fisher="sampled"`` and ``damping=LevenbergMarquardt(...)``. If the optimizer averages the
    weights (``averaging=``), evaluation and prediction use the averages. Everything else is as in
    ``mindspore.train.Model``, with the same arguments.

    Mixed precision works with every ``amp_level``. Three kinds of loss scaling are supported:

    * ``DynamicLossScaleManager``, also on CPUs, with an optimizer whose ``loss_scale`` is 1;
    * ``FixedLossScaleManager``, with an optimizer whose ``loss_scale`` is 1;
    * ``FixedLossScaleManager(scale, drop_overflow_update=False)``, with an optimizer whose ``loss_scale``
      is the same ``scale``.

    As in MindSpore, level O2 uses dynamic loss scaling unless ``loss_scale_manager=None`` is given.

    Args:
        network: the network. It includes the loss if ``loss_fn`` is None.
        loss_fn: the loss function.
        optimizer: any ``nn.Optimizer``.
        sample_targets: as in :class:`ms_kfac.TrainOneStepCell`. Default: None.
        accumulation_steps: number of micro-batches per optimizer step, as in
            :class:`ms_kfac.TrainOneStepCell`. ``train`` counts each micro-batch as a step. Default: 1.
        **arguments: ``metrics``, ``eval_network``, ``eval_indexes``, ``amp_level``, ``boost_level`` and the
            other keyword arguments of ``mindspore.train.Model``.

    Raises:
        TypeError: if targets can't be sampled for the loss.
        ValueError: as in :class:`ms_kfac.TrainOneStepCell`. Also if these options need that training cell,
            but ``boost_level`` or MindSpore's gradient accumulation requires another one.

    Platforms: CPU, GPU, Ascend (MindSpore operators).

    Examples:
        >>> import ms_kfac
        >>> from mindspore import nn
        >>> net = nn.Dense(8, 4)
        >>> optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", averaging=0.99)
        >>> model = ms_kfac.Model(net, nn.CrossEntropyLoss(), optimizer, metrics={"accuracy"})
    """

    _loss_scale_manager: Any
    _loss_scale_manager_set: bool

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
        accumulation_steps: int = 1,
        **arguments: Any,
    ) -> None:
        self._sample_targets = sample_targets
        self._accumulation_steps = check_count("accumulation_steps", accumulation_steps)
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
        if isinstance(optimizer, SecondOrderOptimizer) and self._optimizer is not optimizer:
            raise ValueError(
                "boost_config_dict: dim_reduce replaces the optimizer by nn.SGD, got it turned on with "
                f"{type(optimizer).__name__}; set it to False"
            )

    def _build_train_network(self) -> nn.Cell:
        optimizer = self._optimizer
        if optimizer is None:
            return super()._build_train_network()
        update = self._loss_scale_update()
        if self._boost_level != "O0":
            return self._boosted(update)
        built = self._built_by_mindspore(without_scale=update is not None)
        if type(built) is nn.TrainOneStepCell:
            sens = built.sens if built.sense_flag else None
            cell = TrainOneStepCell(
                built.network,
                optimizer,
                sens,
                sample_targets=self._sample_targets,
                scale_sense=update,
                accumulation_steps=self._accumulation_steps,
            )
            cell.set_train()
            if built.get_inputs() is not None:
                cell.set_inputs(*built.get_inputs())
            return cell
        if update is not None or self._asks_for_own_cell():
            raise ValueError(self._refusal(type(built).__name__))
        return built

    def _built_by_mindspore(self, *, without_scale: bool) -> nn.Cell:
        given = self._loss_scale_manager, self._loss_scale_manager_set
        if without_scale:
            # MindSpore's own cell hides the scale from the optimizer, and it does not support CPUs.
            self._loss_scale_manager, self._loss_scale_manager_set = None, True
        try:
            if self._amp_level == "O1" and isinstance(self._optimizer, SecondOrderOptimizer):
                return self._rewritten(self._optimizer)
            return super()._build_train_network()
        finally:
            self._loss_scale_manager, self._loss_scale_manager_set = given

    def _rewritten(self, optimizer: SecondOrderOptimizer) -> nn.Cell:
        # Level O1 rewrites the classes of layers, which MindSpore can't do for tapped layers.
        optimizer.detach()
        try:
            built = super()._build_train_network()
            optimizer.move_taps(built.network)
        except Exception:
            optimizer.move_taps(self._network)
            raise
        return built

    def _loss_scale_update(self) -> nn.Cell | None:
        """The update Cell of a loss scale that drops steps; None without a scale or for a constant one."""
        manager = self._loss_scale_manager
        if self._amp_level == "O2" and not self._loss_scale_manager_set:
            # MindSpore's default for this level.
            manager = DynamicLossScaleManager()
        return None if manager is None else manager.get_update_cell()

    def _asks_for_own_cell(self) -> bool:
        optimizer = self._optimizer
        needed = isinstance(optimizer, SecondOrderOptimizer) and optimizer.needs_train_cell
        return needed or self._accumulation_steps > 1

    def _boosted(self, update: nn.Cell | None) -> nn.Cell:
        scaled = update is not None and isinstance(self._optimizer, SecondOrderOptimizer)
        if scaled or self._asks_for_own_cell():
            raise ValueError(self._refusal(f"the cell of boost_level={self._boost_level!r}"))
        return super()._build_train_network()

    def _refusal(self, how: str) -> str:
        return (
            "fisher='sampled', damping=LevenbergMarquardt(...), accumulation_steps and loss scales that drop "
            f"steps need ms_kfac.TrainOneStepCell as the training cell, got {how}: use boost_level='O0', and "
            "a network without pipeline stages or a GradAccumulationCell"
        )

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        optimizer = self._optimizer
        if isinstance(optimizer, SecondOrderOptimizer) and optimizer.averages:
            return optimizer.averaged_weights()
        return nullcontext()

    def eval(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate as ``mindspore.train.Model.eval``, with the averaged weights if the optimizer has them.

        Args:
            *arguments: as in ``mindspore.train.Model.eval``.
            **options: as in ``mindspore.train.Model.eval``.

        Returns:
            The metrics by name.
        """
        with self._evaluated_weights():
            return super().eval(*arguments, **options)

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """Predict as ``mindspore.train.Model.predict``, with the averaged weights if the optimizer has them.

        Args:
            *arguments: as in ``mindspore.train.Model.predict``.
            **options: as in ``mindspore.train.Model.predict``.

        Returns:
            The network's outputs.
        """
        with self._evaluated_weights():
            return super().predict(*arguments, **options)

    def _eval_in_fit(self, *arguments: Any, **options: Any) -> Any:
        with self._evaluated_weights():
            return super()._eval_in_fit(*arguments, **options)
