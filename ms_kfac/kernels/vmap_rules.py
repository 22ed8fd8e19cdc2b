"""What ``mindspore.vmap`` does with operators of taps: per-sample gradients are not a training step.

MindSpore keeps one rule per class of operator. The rules here are for operators that are marked; all others
keep the rule that they have.
"""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import ops
from mindspore.ops._vmap.vmap_base import vmap_rules_getters

Rule = Callable[..., Any]

_LEFT_OUT = "ms_kfac_left_out_by_vmap"
_REFUSED = "ms_kfac_refused_by_vmap"


def leave_out_of_vmap(operator: Any) -> Any:
    """Mark a kernel that stages statistics: under vmap it does nothing.

    Args:
        operator: a Custom operator whose output is an unused token.

    Returns:
        The operator.
    """
    operator.add_prim_attr(_LEFT_OUT, True)
    return operator


def refused_by_vmap() -> Any:
    """Create a Stack operator that vmap refuses in a sentence.

    The fallbacks and the sample counter write Parameters by MindSpore's Assign, which can't be marked. vmap
    refuses it in words that mention neither the layer nor a remedy. They all stack what they write.

    Returns:
        The operator.
    """
    operator = ops.Stack()
    operator.add_prim_attr(_REFUSED, True)
    return operator


def _leave_out(*arguments: Any) -> Any:
    return ops.zeros((1,), ms.float32), None


def _refuse(primitive: Any) -> Rule:
    raise ValueError(
        "vmap: while it is tapped, a layer has no per-sample gradients if its statistics run the fallback "
        "(optimizer.summary() tells), or if it counts samples (reduction='sum', blocks['other']): compute "
        "them in a `with optimizer.detached():` block"
    )


def _add_rule(name: str, mark: str, rule_of: Callable[[Any], Rule]) -> None:
    present = vmap_rules_getters.get(name, None)

    def find(primitive: Any, axis_size: int) -> Any:
        if getattr(primitive, mark, False):
            return rule_of(primitive)
        return None if present is None else present(primitive, axis_size)

    vmap_rules_getters.register(name)(find)


_add_rule("Custom", _LEFT_OUT, lambda primitive: _leave_out)
_add_rule("Stack", _REFUSED, _refuse)
