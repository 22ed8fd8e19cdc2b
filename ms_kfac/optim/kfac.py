r"""K-FAC: natural gradient with Kronecker-factored curvature."""

from __future__ import annotations

from ms_kfac.optim.base import SecondOrderOptimizer


class KFAC(SecondOrderOptimizer):
    r"""K-FAC for dense layers and KFC for convolutions, as an ``nn.Optimizer``.

    One step on the gradients of the mean loss computes:

    .. math::
        U_l &= \left(G_l + \tfrac{\sqrt\lambda}{\pi_l} I\right)^{-1} dW_l
               \left(A_l + \pi_l \sqrt\lambda I\right)^{-1} \\
        \nu &= \min\left(1, \sqrt{\frac{\kappa}{\eta^2 \sum_l \langle dW_l, U_l \rangle}}\right) \\
        v &\leftarrow \mu v + \nu U + w_d w, \qquad w \leftarrow w - \eta v

    Here a is the input of a layer, g the gradient of the per-sample loss with respect to its output,
    :math:`A_l = E[a a^\top]` and :math:`G_l = E[g g^\top]`. References: Martens & Grosse 2015, "Optimizing
    Neural Networks with Kronecker-factored Approximate Curvature", sections 3, 4 and 6.3; Grosse & Martens
    2016, "A Kronecker-factored Approximate Fisher Matrix for Convolution Layers". The trust region follows
    Ba, Grosse & Martens 2017. With ``fisher="empirical"`` g comes from the labels, in the backward pass of
    the training step. With "sampled" g comes from targets drawn from the model's predictive distribution, as
    in Martens & Grosse 2015.

    The constructor taps the supported layers of ``network`` in place:

    * dense layers (``nn.Dense``, ``mint.nn.Linear``) and their subclasses;
    * the projections of ``nn.MultiheadAttention`` and the two maps of ``nn.RNNCell``, ``nn.GRUCell`` and
      ``nn.LSTMCell``, as dense layers;
    * convolutions (``Conv1d``, ``Conv2d`` and ``Conv3d`` of ``nn`` and ``mint.nn``; any kernel, stride,
      padding, dilation and groups) and their subclasses;
    * transposed convolutions (``nn.Conv1dTranspose``, ``nn.Conv2dTranspose``, ``nn.Conv3dTranspose``,
      ``mint.nn.ConvTranspose2d``), without their bias;
    * embedding tables (``nn.Embedding``, ``mint.nn.Embedding``, ``nn.EmbeddingLookup`` with dense gradients);
    * layers of other classes (:func:`ms_kfac.register_layer`);
    * on request, normalization layers (batch, layer and group normalization of ``nn`` and ``mint.nn``,
      ``nn.InstanceNorm1d`` to ``3d``, ``SyncBatchNorm`` on one device).

    Tapped layers stay the same objects with the same Parameters. All other parameters take the same step with
    their gradient instead of :math:`\nu U`, or AdamW's (``first_order``); :meth:`summary` lists them with the
    reason.

    Args:
        network: the network to train. Every gradient computed through it fills the statistics, whichever API
            computes it.
        learning_rate: float, iterable, Tensor or LearningRateSchedule, as in ``mindspore.nn.Momentum``.
        params: parameters or parameter groups as ``mindspore.nn.Momentum`` takes them. Default: None, the
            network's trainable parameters.
        momentum: :math:`\mu` in [0, 1). Default: 0.9.
        nesterov: Nesterov's momentum instead of the heavy ball. Default: False.
        weight_decay: :math:`w_d`, a non-negative number or a Cell called with the step. As in
            ``mindspore.nn.Momentum``, parameters with "beta" or "gamma" in their names are exempt unless
            parameter groups say otherwise. Default: 0.0.
        decoupled_weight_decay: shrink weights by :math:`1 - \eta w_d` outside the momentum. Default: False.
        first_order: the rule for parameters without a curvature block. "momentum" is the rule above, at the
            rate :math:`\eta`. :class:`ms_kfac.AdamW` has its own learning rate and weight decay; "adam" is
            ``AdamW()`` with its defaults. A layer that has a block follows the rule above, also while it has
            no statistics. Default: "momentum".
        damping: :math:`\lambda`, a positive number, an iterable of them (one per step), a Cell called
            with the step, or :class:`ms_kfac.LevenbergMarquardt`. Default: 0.1.
        factor_decay: :math:`\epsilon` of the moving averages, in [0, 1). The k-th refresh weights the
            previous average by :math:`\min(1 - 1/k, \epsilon)`. Default: 0.95.
        factor_interval: number of steps between refreshes of the statistics after a warm-up
            (:class:`ms_kfac.WarmUpInterval`), or a :class:`ms_kfac.RefreshPolicy`. Default: 10.
        inverse_interval: number of steps between recomputations of the inverses after the same warm-up, or a
            policy. Default: 100.
        kl_clip: :math:`\kappa` of the trust region: a positive number, an iterable of them (one per step), or
            a Cell called with the step. None disables it. Default: 3e-4.
        fisher: "empirical" or "sampled". "sampled" requires :class:`ms_kfac.TrainOneStepCell` or
            :class:`ms_kfac.Model`. Default: "empirical".
        sharing: "expand" or "reduce", how the weight-sharing locations of a convolution, or of a dense layer
            on :math:`(N, T, d)`, enter the factors (Eschenhagen et al. 2023). Default: "expand".
        reduction: "mean" or "sum", how the loss reduces over the first axis of the batch. With "sum"
            the optimizer divides gradients by the number of samples. It counts samples on the first axis of
            the input of the first preconditioned dense layer or convolution. Default: "mean".
        loss_scale: the factor by which the loss is multiplied before the backward pass, read when statistics
            are committed. With a number or a scalar Parameter, gradients arrive multiplied by it. With a
            ``mindspore.amp`` loss scaler, gradients arrive as its ``unscale`` returns them. Default: 1.0.
        accumulation_steps: the divisor of each micro-batch's loss when several backward passes precede one
            step and their gradients are summed. Leave it at 1 if each pass takes its own mean loss and the
            gradients are averaged. The optimizer detects that case at the first step. Default: 1.
        skip: regular expressions, searched in layer names. Matching layers stay first-order. A pattern
            without a match causes a warning. Default: ().
        normalization: "first_order", or "unit_wise" to precondition gamma and beta of normalization layers by
            one 2 x 2 Fisher block per channel (:class:`ms_kfac.curvature.unit_wise.UnitWiseBlock`). Default:
            "first_order".
        blocks: a dict that overrides the curvature blocks of the method. Each value is a class of
            :mod:`ms_kfac.curvature`, a function that makes a block (see
            :class:`ms_kfac.curvature.CurvatureBlock` for its arguments), or "first_order". Each key is a kind
            of layer ("dense", "convolution", "embedding", "normalization", a kind registered with
            :func:`ms_kfac.register_layer`), "default", or a regular expression on layer names. "default"
            covers dense layers, convolutions and registered kinds without a key. The first pattern that
            matches a name takes precedence over kinds. "other" gives a block
            (:class:`ms_kfac.curvature.DiagonalBlock`) to each Parameter outside all preconditioned
            layers, of any float type, except those that ``skip`` or a "first_order" pattern matches. Samples
            are counted as for ``reduction``. Default: None.
        damping_split: "pi" splits the damping between A and G by their traces, with :math:`\pi_l =
            \sqrt{(\mathrm{tr} A_l / \dim A_l) / (\mathrm{tr} G_l / \dim G_l)}`; "none" adds
            :math:`\sqrt\lambda` to each (:math:`\pi_l = 1`). Default: "pi".
        averaging: :math:`\xi` in [0, 1), the decay of the Polyak average of the weights;
            :math:`\exp(-1/\tau)` averages over about :math:`\tau` steps. See :meth:`averaged_weights`. None
            disables averaging. Default: None.
        verify: how to handle a layer whose statistics do not match the gradient that the optimizer received.
            Every commit checks this. "warn" warns once per layer, and refuses the batches of such a layer
            while other layers match: without earlier statistics it is first-order. "first_order" makes the
            layer first-order for good, from its next refresh on. Both refuse batches of a pass that was not
            the step's own (see :meth:`paused`), and of a loss scale that is not given as ``loss_scale``.
            "off" checks for NaN and Inf only. A batch with NaN or Inf is never committed. Default: "warn".
        on_nonfinite: what a step does whose gradients or updates hold NaN or Inf. It changes neither weights
            nor momentum, nor the statistics of layers with such gradients. "skip" warns once per parameter
            and counts the step (:attr:`skipped_steps`). "raise" raises :class:`ms_kfac.NonFiniteError`, from
            a call of the optimizer, of ``ms_kfac.TrainOneStepCell`` or of ``ms_kfac.Model``; it waits for
            each step. After other compiled steps call :meth:`check_finite`. Default: "skip".
        name: prefix of the names of the optimizer's Parameters. Optimizers in one graph need different names.
            None uses the method's name. If ``network`` is part of a larger network, or ``params`` lie in one
            part of it, None appends the path of that part ("kfac.generator"). Default: None.
        distribution: a :class:`ms_kfac.parallel.Distribution`, how the ranks of a data-parallel run share the
            curvature work. None uses its defaults if MindSpore's parallel mode is data-parallel and the group
            has more than one rank. An explicit value also applies in stand-alone mode, for training loops
            that average gradients over ranks themselves. Default: None.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the scaled loss with respect to ``parameters``.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range, or is not supported on several devices.
        RuntimeError: before ``mindspore.communication.init()`` in data-parallel mode or with
            ``distribution``.

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.KFAC(net, learning_rate=0.1, damping=0.03)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "kfac"
