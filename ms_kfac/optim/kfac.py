r"""K-FAC: natural gradient with Kronecker-factored curvature."""

from __future__ import annotations

from ms_kfac.optim.base import SecondOrderOptimizer


class KFAC(SecondOrderOptimizer):
    r"""K-FAC for dense layers and KFC for convolutions, as an ``nn.Optimizer``.

    One step on the gradients of the mean loss:

    .. math::
        U_l &= \left(G_l + \tfrac{\sqrt\lambda}{\pi_l} I\right)^{-1} dW_l
               \left(A_l + \pi_l \sqrt\lambda I\right)^{-1} \\
        \nu &= \min\left(1, \sqrt{\frac{\kappa}{\eta^2 \sum_l \langle dW_l, U_l \rangle}}\right) \\
        v &\leftarrow \mu v + \nu U + w_d w, \qquad w \leftarrow w - \eta v

    with :math:`A_l = E[a a^\top]` of a layer's inputs and :math:`G_l = E[g g^\top]` of the gradients of the
    per-sample loss at its outputs (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored
    Approximate Curvature", sections 3, 4 and 6.3; Grosse & Martens 2016, "A Kronecker-factored
    Approximate Fisher Matrix for Convolution Layers"; the trust region is that of Ba, Grosse & Martens 2017).
    With ``fisher="empirical"`` g comes from the labels, in the training step's own backward pass; with
    "sampled" it comes from targets drawn from the model's own distribution, as in Martens & Grosse 2015.

    The constructor taps the supported layers of ``network`` in place: dense layers (``nn.Dense``,
    ``mint.nn.Linear``) and convolutions (``nn.Conv1d``, ``nn.Conv2d``, ``mint.nn.Conv1d``,
    ``mint.nn.Conv2d``; any kernel, stride, padding, dilation and groups) with their subclasses, embedding
    tables (``nn.Embedding``), layers of other classes (:func:`ms_kfac.register_layer`) and, on request,
    normalisation layers (``nn.BatchNorm1d``, ``nn.BatchNorm2d``, ``nn.BatchNorm3d``, ``nn.LayerNorm``). They
    stay the same objects with the same Parameters. All other parameters take the same step with :math:`\nu U`
    replaced by their gradient; :meth:`summary` says which and why.

    Args:
        network: the network to train. A gradient computed through it fills the statistics, however it is
            computed.
        learning_rate: float, iterable, Tensor or LearningRateSchedule, as in ``mindspore.nn.Momentum``.
        params: parameters or parameter groups as ``mindspore.nn.Momentum`` takes them. Default: None, the
            network's trainable parameters.
        momentum: :math:`\mu` in [0, 1). Default: 0.9.
        nesterov: Nesterov's momentum in the place of the heavy ball. Default: False.
        weight_decay: :math:`w_d`, a non-negative number or a Cell called with the step. As in
            ``mindspore.nn.Momentum``, parameters with "beta" or "gamma" in their names are exempt unless
            parameter groups say otherwise. Default: 0.0.
        decoupled_weight_decay: shrink weights by :math:`1 - \eta w_d` outside the momentum. Default: False.
        damping: :math:`\lambda`, a positive number, an iterable of them (one a step), a Cell called with
            the step, or :class:`ms_kfac.LevenbergMarquardt`. Default: 0.1.
        factor_decay: :math:`\epsilon` of the moving averages in [0, 1); the k-th refresh keeps :math:`\min(1
            - 1/k, \epsilon)` of the past. Default: 0.95.
        factor_interval: steps from one batch of statistics to the next after a warm-up
            (:class:`ms_kfac.WarmUpInterval`), or a :class:`ms_kfac.RefreshPolicy`. Default: 10.
        inverse_interval: steps from one recomputation of the inverses to the next after the same warm-up, or
            a policy. Default: 100.
        kl_clip: :math:`\kappa` of the trust region; None switches it off. Default: 3e-4.
        fisher: "empirical" or "sampled"; the latter trains by :class:`ms_kfac.TrainOneStepCell` or
            :class:`ms_kfac.Model`. Default: "empirical".
        sharing: "expand" or "reduce", how the locations of a convolution, or of a dense layer on :math:`(N,
            T, d)`, enter the factors (Eschenhagen et al. 2023). Default: "expand".
        reduction: "mean" or "sum", how the loss reduces over the first axis of the batch. With "sum"
            gradients are divided by the number of samples, which is counted on the first axis of the input of
            the first dense layer or convolution that is preconditioned. Default: "mean".
        loss_scale: what the loss is multiplied with before the backward pass, read when statistics are
            committed. A number or a scalar Parameter: gradients arrive multiplied, too. A ``mindspore.amp``
            loss scaler: gradients arrive as its ``unscale`` returns them. Default: 1.0.
        accumulation_steps: what each micro-batch's loss is divided by when several backward passes precede
            one step and their gradients are summed. Leave it at 1 where each has its own mean loss and the
            gradients are averaged: that is recognised at the first step. Default: 1.
        skip: regular expressions, searched in layer names; what matches stays first-order. One that is
            found in no name is warned about. Default: ().
        normalization: "first_order", or "unit_wise" to precondition gamma and beta of normalisation layers by
            one 2 x 2 Fisher block a channel (:class:`ms_kfac.curvature.unit_wise.UnitWiseBlock`). Default:
            "first_order".
        blocks: a dict that chooses other curvature blocks than this method's. Each value is a class of
            :mod:`ms_kfac.curvature`, a function that makes a block (see
            :class:`ms_kfac.curvature.CurvatureBlock` for its arguments), or "first_order". Each key is a kind
            of layer ("dense", "convolution", "embedding", "normalization", a kind of
            :func:`ms_kfac.register_layer`), or "default" for dense layers, convolutions and registered kinds
            that are not named, or a regular expression on layer names. The first pattern that matches a name
            takes precedence over kinds. "other" gives a block to each float32 Parameter outside all
            preconditioned layers (:class:`ms_kfac.curvature.DiagonalBlock`), except those that ``skip`` or
            "first_order" names; samples are counted as for ``reduction``. Default: None.
        damping_split: "pi" splits the damping between A and G by their traces, with :math:`\pi_l =
            \sqrt{(\mathrm{tr} A_l / \dim A_l) / (\mathrm{tr} G_l / \dim G_l)}`; "none" gives each
            :math:`\sqrt\lambda` (:math:`\pi_l = 1`). Default: "pi".
        averaging: :math:`\xi` in [0, 1) of Polyak's average of the weights, :math:`\exp(-1/\tau)` for about
            :math:`\tau` steps; see :meth:`averaged_weights`. None takes no average. Default: None.
        verify: what happens to a layer whose statistics do not belong to its delivered gradient, checked at
            every commit: "warn" warns once per layer and goes on; "first_order" also leaves the layer
            first-order from its next refresh on; "off" checks for NaN and Inf alone. A batch with NaN or Inf
            is never committed. Default: "warn".
        name: what the names of the optimizer's Parameters start with. Optimizers in one graph need different
            names. None takes the method's name and, where ``network`` is part of a larger one or ``params``
            lie in one part of it, the path of that part ("kfac.generator"). Default: None.
        distribution: a :class:`ms_kfac.parallel.Distribution`, how the ranks of a data-parallel run share the
            curvature work. None takes its defaults where MindSpore's parallel mode is data-parallel and the
            group has more than one rank; one given counts in the stand-alone mode too, for training loops
            that average gradients over ranks themselves. Default: None.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of ``parameters``, of the loss as scaled.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range, or does not serve on many devices.
        RuntimeError: before ``mindspore.communication.init()`` in data-parallel mode or with
            ``distribution``.

    Platforms: CPU. GPU with fallback operators: not run on a GPU yet.

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.KFAC(net, learning_rate=0.1, damping=0.03)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "kfac"
