"""An ONNX graph under construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import VerydeepError


class Graph:
    """Nodes and weights of a graph under construction; each node's output has the node's name."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise VerydeepError("exporting to ONNX needs onnx: pip install 'verydeep[onnx]'.") from None
        self.onnx: Any = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def store(self, name: str, value: Any) -> str:
        """Adds a constant tensor; returns its name."""
        array = value.detach().contiguous().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name


@dataclass(frozen=True)
class Value:
    """The output of a node in arithmetic, of which each step adds a node; numbers become constants of its type."""

    graph: Graph
    name: str
    dtype: Any

    def apply(self, operator: str, *inputs: Value | float | NDArray[Any], **attributes: Any) -> Value:
        """The output of an operator on this and other inputs; arrays become constants of their own type."""
        names = [self.name, *map(self._named, inputs)]
        name = self.graph.add(operator, names, f"{operator}{len(self.graph.nodes)}", **attributes)
        return Value(self.graph, name, self.dtype)

    def _named(self, value: Value | float | NDArray[Any]) -> str:
        if isinstance(value, Value):
            return value.name
        array = value if isinstance(value, np.ndarray) else np.array(value, self.dtype)
        return self.graph.store(f"constant{len(self.graph.weights)}", array)

    def cast(self, dtype: Any) -> Value:
        """The same values in another type."""
        kind = self.graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return Value(self.graph, self.apply("Cast", to=kind).name, dtype)

    def floor(self) -> Value:
        """The largest whole number up to each value."""
        return self.apply("Floor")

    def __add__(self, other: Value | float | NDArray[Any]) -> Value:
        return self.apply("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self.apply("Sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self.apply("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.apply("Div", other)
