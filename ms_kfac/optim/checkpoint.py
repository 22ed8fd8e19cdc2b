"""Loading of checkpoints into an optimizer and its network: checked as a whole before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from mindspore import Parameter, Tensor, ops

from ms_kfac.user_warning import warn_user


def load_checkpoint(
    optimizer: Any, others: Iterable[Parameter], curvature: Sequence[Parameter], content: Mapping[str, Any]
) -> None:
    """Write a checkpoint into the Parameters of an optimizer and its network, in place.

    Args:
        optimizer: the optimizer.
        others: further Parameters of the network.
        curvature: the Parameters of statistics and inverses. All of them are loaded, or none.
        content: the checkpoint, Parameters by name.

    Raises:
        ValueError: if the checkpoint does not fit. Nothing was written then.
    """
    targets = list(
        {id(parameter): parameter for parameter in (*optimizer.get_parameters(), *others)}.values()
    )
    names = match_names([p.name for p in targets], content, [p.name for p in optimizer.parameters])
    values = {own: content[name] for own, name in names.items()}
    owner = type(optimizer).__name__
    absent = [parameter.name for parameter in curvature if parameter.name not in values]
    if absent and len(absent) < len(curvature):
        raise ValueError(
            f"checkpoint: must hold all statistics and inverses of {owner} or none, got one without "
            f"{_listed(absent)}. It belongs to another version of ms_kfac, to other options or to another "
            "network. A checkpoint of the network alone loads the weights. Nothing was loaded"
        )
    _check_shapes(owner, targets, values)
    for block in optimizer.blocks:
        block.check_checkpoint(values)
    if absent and any(moment.name in values for moment in optimizer.moments):
        warn_user(
            f"{owner}: the checkpoint holds momentum, but no statistics and inverses of this optimizer. They "
            "start with the next batch of statistics; the other Parameters were loaded"
        )
    for parameter in targets:
        if parameter.name in values:
            ops.assign(parameter, Tensor(values[parameter.name].asnumpy(), parameter.dtype))


def match_names(own: Sequence[str], content: Iterable[str], required: Sequence[str]) -> dict[str, str]:
    """Match names that differ at most by a cell around the network.

    Args:
        own: the names to match.
        content: the names in a checkpoint.
        required: names among ``own`` that must all have a match before a difference is accepted.

    Returns:
        The name in the checkpoint for each own name that has a match.
    """
    names = list(content)
    present = set(names)
    found = {name: name for name in own if name in present}
    missing = [name for name in own if name not in found]
    unknown = [name for name in names if name not in found]
    wrapper, inside = _wrapper(missing, unknown), {}
    if wrapper:
        shorter = {_without(name, wrapper): name for name in unknown}
        inside = {name: shorter[name] for name in missing if name in shorter}
        shorter = {_without(name, wrapper): name for name in missing}
        inside.update({shorter[name]: name for name in unknown if name in shorter})
    return {**found, **inside} if all(name in found or name in inside for name in required) else found


def _wrapper(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """The part of the longer names that explains most differences; empty without one."""
    votes: Counter[str] = Counter()
    for longer, shorter in ((unknown, set(missing)), (missing, set(unknown))):
        for name in longer:
            parts = name.split(".")
            for first, end in combinations(range(len(parts)), 2):
                if ".".join(parts[:first] + parts[end:]) in shorter:
                    votes[".".join(parts[first:end])] += 1
    return votes.most_common(1)[0][0] if votes else ""


def _without(name: str, part: str) -> str:
    return f".{name}".replace(f".{part}.", ".", 1)[1:]


def _check_shapes(owner: str, targets: Iterable[Parameter], values: Mapping[str, Any]) -> None:
    wrong = [
        f"{p.name} {tuple(values[p.name].shape)} instead of {tuple(p.shape)}"
        for p in targets
        if p.name in values and tuple(values[p.name].shape) != tuple(p.shape)
    ]
    if wrong:
        raise ValueError(
            f"checkpoint: must have the shapes of the network and {owner}, got {_listed(wrong)}. Nothing was "
            "loaded"
        )


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
