"""Sect. 3.2: the dense net as an ONNX graph, written layer by layer from Table 1.

The net is a chain, so its graph is written and not traced: pooling keeps its rounding, batch, height and width stay
dynamic, and a node's name says what it computes. The mean score map is fc8 on the mean of fc7's, as in
`verydeep.models.vgg.Net.mean_scores`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.exported import UINT8
from ..core.errors import VerydeepError
from ..models.architectures import has_lrn
from ..models.vgg import Net

OPSET, IR = 17, 8  # supported by ONNX Runtime since 2022
IMAGES, PIXELS, POSTERIOR, SCORES = "photos", "pixels", "posterior", "scores"


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


def build(net: Net, metadata: Metadata, takes: str) -> Any:
    """The graph of a net as an ONNX model.

    Args:
        takes: ``uint8``, images (B,H,W,3) to posteriors (B,K); or ``float``, pixels (B,3,H,W) minus the mean to
            scores (B,K).
    """
    graph = Graph()
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    if takes == UINT8:
        end = graph.add("Softmax", [_scores(graph, net, _centred(graph, metadata))], POSTERIOR, axis=1)
        source = helper.make_tensor_value_info(IMAGES, types.UINT8, ["batch", "height", "width", 3])
    else:
        end = _scores(graph, net, PIXELS)
        source = helper.make_tensor_value_info(PIXELS, types.FLOAT, ["batch", 3, "height", "width"])
    result = helper.make_tensor_value_info(end, types.FLOAT, ["batch", net.classes])
    layers = helper.make_graph(graph.nodes, f"net {metadata.net}", [source], [result], graph.weights)
    model = helper.make_model(layers, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="verydeep")
    model.ir_version = IR
    return model


def _centred(graph: Graph, metadata: Metadata) -> str:
    """uint8 (B,H,W,3) to float (B,3,H,W) minus the mean."""
    x = graph.add("Cast", [IMAGES], "as_float", to=graph.onnx.TensorProto.FLOAT)
    x = graph.add("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])
    return graph.add(
        "Sub", [x, graph.store("mean", np.array(metadata.mean, dtype=np.float32).reshape(1, 3, 1, 1))], "centred"
    )


def _scores(graph: Graph, net: Net, x: str) -> str:
    """Mean scores (B,K) of float pixels."""
    for number, spec in enumerate(net.specs[:-1]):
        x = _convolution(graph, net, spec.name, x)
        if has_lrn(net.name) and number == 0:
            x = graph.add("LRN", [x], "lrn", size=5, alpha=5e-4, beta=0.75, bias=2.0)
        if spec.stage <= 5 and net.specs[number + 1].stage != spec.stage:
            up = int(net.pooling == "up")
            x = graph.add("MaxPool", [x], f"pool{spec.stage}", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=up)
    x = graph.add("GlobalAveragePool", [x], "fc7_mean")
    x = graph.add("Flatten", [x], "fc7_row")
    fc8 = net.layer("fc8")
    names = [graph.store("fc8.weight", fc8.weight.flatten(1)), graph.store("fc8.bias", fc8.bias)]
    return graph.add("Gemm", [x, *names], SCORES, transB=1)


def _convolution(graph: Graph, net: Net, name: str, x: str) -> str:
    layer = net.layer(name)
    padding = layer.padding[0]
    assert isinstance(padding, int)
    inputs = [x, graph.store(f"{name}.weight", layer.weight), graph.store(f"{name}.bias", layer.bias)]
    x = graph.add("Conv", inputs, name, kernel_shape=list(layer.kernel_size), pads=[padding] * 4)
    return graph.add("Relu", [x], f"{name}_relu")
