"""Loading of checkpoints into an optimizer and its network: checked as a whole before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.user_warning import warn_user
from ms_kfac.values import shown


@dataclass(frozen=True)
class Restored:
    """What ``restore`` has loaded. ``print`` tells it in one line.

    Attributes:
        network: names of the loaded Parameters of the network.
        optimizer: names of the loaded Parameters of the optimizer alone, such as statistics and momentum.
        kept: names of Parameters that the checkpoint lacks; they stay as they were, except that the Polyak
            averages of loaded weights start from these weights.
        ignored: names in the checkpoint that neither the network nor the optimizer has.
    """

    network: tuple[str, ...]
    optimizer: tuple[str, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        kept = f"; kept {len(self.kept)} ({_listed(self.kept)})" if self.kept else ""
        ignored = f"; ignored {len(self.ignored)} ({_listed(self.ignored)})" if self.ignored else ""
        return (
            f"loaded {len(self.network)} Parameters of the network and {len(self.optimizer)} of the "
            f"optimizer{kept}{ignored}"
        )


def load_checkpoint(
    optimizer: Any,
    others: Iterable[Parameter],
    curvature: Sequence[Parameter],
    checkpoint: Mapping[str, Any] | str | os.PathLike[str],
) -> Restored:
    """Write a checkpoint into the Parameters of an optimizer and its network, in place.

    Args:
        optimizer: the optimizer.
        others: further Parameters of the network.
        curvature: the Parameters of statistics and inverses. All of them are loaded, or none.
        checkpoint: Parameters by name, or the path of a file that ``mindspore.save_checkpoint`` has written.

    Returns:
        The names of what was loaded, and of what was not.

    Raises:
        TypeError: if it is neither, or holds anything but Tensors. Nothing was written then.
        ValueError: if the file can't be read, or the checkpoint does not fit. Nothing was written then.
    """
    content = _content_of(checkpoint)
    weights = list({id(p): p for p in (*optimizer.parameters, *others)}.values())
    targets = list({id(p): p for p in (*optimizer.get_parameters(), *weights)}.values())
    names = match_names([p.name for p in targets], content, [p.name for p in optimizer.parameters])
    values = {own: content[name] for own, name in names.items()}
    owner = type(optimizer).__name__
    of_network = [parameter.name for parameter in weights]
    loaded = [name for name in of_network if name in values]
    if not loaded:
        raise ValueError(
            f"checkpoint must have names of the network, such as {_listed(of_network)}, got "
            f"{_listed(list(content)) or 'an empty one'}. Nothing was loaded"
        )
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
    # All of them are converted before the first is written.
    tensors = [
        (parameter, Tensor(values[parameter.name].asnumpy(), parameter.dtype))
        for parameter in targets
        if parameter.name in values
    ]
    if absent and any(moment.name in values for moment in optimizer.moments):
        warn_user(
            f"{owner}: the checkpoint holds momentum, but no statistics and inverses of this optimizer. They "
            "start with the next batch of statistics; the other Parameters were loaded"
        )
    if len(loaded) < len(of_network):
        lacking = [name for name in of_network if name not in values]
        warn_user(
            f"{owner}: the checkpoint lacks {len(lacking)} of {len(of_network)} Parameters of the network, "
            f"which stay as they are: {_listed(lacking)}"
        )
    for parameter, value in tensors:
        ops.assign(parameter, value)
    own, used = set(of_network), set(names.values())
    return Restored(
        tuple(loaded),
        tuple(p.name for p, _ in tensors if p.name not in own),
        tuple(p.name for p in targets if p.name not in values),
        tuple(name for name in content if name not in used),
    )


def _content_of(checkpoint: Any) -> Mapping[str, Any]:
    """The Parameters of a checkpoint by name, read from its file if it is a path."""
    accepted = "the result of mindspore.load_checkpoint or the path of a file of mindspore.save_checkpoint"
    if isinstance(checkpoint, (str, os.PathLike)):
        return _read(Path(checkpoint), f"checkpoint must be {accepted}, got {shown(str(checkpoint))}")
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f"checkpoint must be {accepted}, got {shown(checkpoint)}. Nothing was loaded")
    for name, value in checkpoint.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(
                f"checkpoint must map names to Parameters or Tensors, got {shown(name)}: {shown(value)}. "
                "Nothing was loaded"
            )
    return checkpoint


def _read(path: Path, message: str) -> Mapping[str, Any]:
    try:
        if not path.is_file():
            reason = "which is no file" if path.exists() else "which does not exist"
            raise ValueError(f"{message}, {reason}. Nothing was loaded")
    except OSError as error:
        raise ValueError(f"{message}, which can't be read: {error.strerror}. Nothing was loaded") from error
    try:
        content: Mapping[str, Any] = ms.load_checkpoint(str(path))
    except Exception as error:  # MindSpore's reasons have several types, and name its own arguments.
        raise ValueError(f"{message}, which is no such file or is damaged. Nothing was loaded") from error
    return content


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
