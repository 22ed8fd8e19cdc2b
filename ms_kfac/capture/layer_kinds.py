"""Registry of layer kinds: maps classes of layers to the functions that describe them."""

from __future__ import annotations

from typing import Callable, Union

from mindspore import nn

from ms_kfac.capture.layer import OTHER, Layer

# A cell with several linear maps is several layers.
Description = Union[Layer, tuple[Layer, ...], str]
Describe = Callable[[str, nn.Cell], Description]

_DESCRIBE: dict[type, Describe] = {}


def register_layer(*classes: type[nn.Cell]) -> Callable[[Describe], Describe]:
    """Register layer classes, so that optimizers precondition their instances and subclasses.

    The result decorates a function that describes a layer. A layer is described by the function of its
    closest base class. Registering a class again replaces its function. Optimizers created later use the
    change.

    Args:
        *classes: classes of layers, subclasses of ``nn.Cell``.

    Returns:
        The decorator; it returns the function unchanged. The function receives the name of a cell in the
        network and the cell. It returns a :class:`ms_kfac.capture.Layer`, a tuple of several, or the reason
        why this cell can't be preconditioned.

    Raises:
        TypeError: if no class is given, or if one is not a subclass of ``nn.Cell``.

    Examples:
        >>> from mindspore import Parameter, Tensor, nn, ops
        >>> import ms_kfac
        >>> from ms_kfac.capture import DenseOperators, Layer
        >>> class Project(nn.Cell):
        ...     def __init__(self, inputs, outputs):
        ...         super().__init__()
        ...         self.matrix = Parameter(ops.randn(outputs, inputs), name="matrix")
        ...     def construct(self, x):
        ...         return ops.matmul(x, self.matrix.T)
        >>> @ms_kfac.register_layer(Project)
        ... def describe_project(name, cell):
        ...     operators = DenseOperators(bias=False)
        ...     return Layer(
        ...         name=name, kind="dense", cell=cell, weight=cell.matrix, bias=None, operators=operators
        ...     )
    """
    if not classes or not all(isinstance(cls, type) and issubclass(cls, nn.Cell) for cls in classes):
        raise TypeError(f"register_layer: classes must be subclasses of mindspore.nn.Cell, got {classes!r}")

    def register(describe: Describe) -> Describe:
        _DESCRIBE.update(dict.fromkeys(classes, describe))
        return describe

    return register


def describe_layer(name: str, cell: nn.Cell) -> Description:
    """Describe a cell with the function registered for its class.

    Args:
        name: the cell's name in the network.
        cell: the cell, tapped or not.

    Returns:
        The layer or layers, or the reason why the cell can't be preconditioned.

    Raises:
        ValueError: if the function returns a layer of the kind "other".
    """
    for cls in type(cell).__mro__:
        if cls in _DESCRIBE:
            described = _DESCRIBE[cls](name, cell)
            if any(layer.kind == OTHER for layer in layers_of(described)):
                raise ValueError(
                    f"register_layer: the kind of {name} must not be 'other', which is reserved for "
                    "Parameters outside all layers"
                )
            return described
    return f"no curvature block for {type(cell).__name__}"


def layers_of(described: Description) -> tuple[Layer, ...]:
    """Return the layers of a description.

    Args:
        described: what a registered function returned.

    Returns:
        The layers; none if the description is a reason.
    """
    if isinstance(described, Layer):
        return (described,)
    return () if isinstance(described, str) else described
