"""Sect. 3.2: the dense net as an ONNX graph, written layer by layer from Table 1.

The net is a chain, so its graph is written and not traced: pooling keeps its rounding, batch, height and width stay
dynamic, and a node's name says what it computes. The mean score map is fc8 on the mean of fc7's, as in
`verydeep.models.vgg.Net.mean_scores`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.exported import FLOAT, INPUTS, OUTPUTS, PHOTO, UINT8
from ..models.architectures import has_lrn
from ..models.vgg import Net
from .graph import Graph
from .resize import add_resize

OPSET, IR = 17, 8  # supported by ONNX Runtime since 2022
IMAGES, PIXELS = INPUTS[UINT8], INPUTS[FLOAT]
POSTERIOR, SCORES = OUTPUTS[UINT8], OUTPUTS[FLOAT]


def build(net: Net, metadata: Metadata, takes: str) -> Any:
    """The graph of a net as an ONNX model.

    Args:
        takes: ``uint8``, images (B,H,W,3) to posteriors (B,K); ``photo``, an image (H,W,3) of any size to the
            posterior (1,K) of its central crop at Q; or ``float``, pixels (B,3,H,W) minus the mean to scores (B,K).
    """
    graph = Graph()
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    shapes = {
        UINT8: (types.UINT8, ["batch", "height", "width", 3]),
        PHOTO: (types.UINT8, ["height", "width", 3]),
        FLOAT: (types.FLOAT, ["batch", 3, "height", "width"]),
    }
    end = _scores(graph, net, _pixels(graph, metadata, takes))
    if takes != FLOAT:
        end = graph.add("Softmax", [end], POSTERIOR, axis=1)
    source = helper.make_tensor_value_info(INPUTS[takes], *shapes[takes])
    count = 1 if takes == PHOTO else "batch"
    return _model(graph, net, source, helper.make_tensor_value_info(end, types.FLOAT, [count, net.classes]))


def build_static(net: Net, batch: int, side: int) -> Any:
    """The graph for one batch size and image size, which runtimes optimise best: float (B,3,side,side) minus the mean
    to posteriors (B,K).

    At the net's crop the FC layers are matrix products, as in VGG nets of other frameworks.
    """
    graph = Graph()
    helper, types = graph.onnx.helper, graph.onnx.TensorProto
    scores = _crop_scores(graph, net, PIXELS) if side == net.crop else _scores(graph, net, PIXELS)
    end = graph.add("Softmax", [scores], POSTERIOR, axis=1)
    source = helper.make_tensor_value_info(PIXELS, types.FLOAT, [batch, 3, side, side])
    return _model(graph, net, source, helper.make_tensor_value_info(end, types.FLOAT, [batch, net.classes]))


def _model(graph: Graph, net: Net, source: Any, result: Any) -> Any:
    """The complete graph as a model, with its input and output."""
    helper = graph.onnx.helper
    layers = helper.make_graph(graph.nodes, f"net {net.name}", [source], [result], graph.weights)
    model = helper.make_model(layers, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="verydeep")
    model.ir_version = IR
    return model


def _pixels(graph: Graph, metadata: Metadata, takes: str) -> str:
    """The input as float (B,3,H,W) minus the mean."""
    if takes == FLOAT:
        return PIXELS
    if takes == PHOTO:
        x = graph.add("Unsqueeze", [add_resize(graph, metadata), graph.store("batch_axis", np.array([0]))], "batch")
    else:
        x = graph.add("Cast", [IMAGES], "as_float", to=graph.onnx.TensorProto.FLOAT)
        x = graph.add("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])
    mean = graph.store("mean", np.array(metadata.mean, dtype=np.float32).reshape(1, 3, 1, 1))
    return graph.add("Sub", [x, mean], "centred")


def _scores(graph: Graph, net: Net, x: str) -> str:
    """Mean scores (B,K) of float pixels."""
    x = _stages(graph, net, x, int(net.pooling == "up"))
    for name in ("fc6", "fc7"):
        x = _convolution(graph, net, name, x)
    x = graph.add("GlobalAveragePool", [x], "fc7_mean")
    return _product(graph, net, "fc8", graph.add("Flatten", [x], "fc7_row"), SCORES)


def _crop_scores(graph: Graph, net: Net, x: str) -> str:
    """Scores (B,K) of float pixels of the crop's size, where pooling rounds nothing."""
    x = graph.add("Flatten", [_stages(graph, net, x, 0)], "pool5_row")
    for name in ("fc6", "fc7"):
        x = graph.add("Relu", [_product(graph, net, name, x, name)], f"{name}_relu")
    return _product(graph, net, "fc8", x, SCORES)


def _stages(graph: Graph, net: Net, x: str, ceil_mode: int) -> str:
    """The map (B,D,h,w) after the last pooling."""
    convolutions = [spec for spec in net.specs if spec.stage <= 5]
    for number, spec in enumerate(convolutions):
        x = _convolution(graph, net, spec.name, x)
        if has_lrn(net.name) and number == 0:
            x = graph.add("LRN", [x], "lrn", size=5, alpha=5e-4, beta=0.75, bias=2.0)
        if [after.stage for after in convolutions[number + 1 :][:1]] != [spec.stage]:
            name, sides = f"pool{spec.stage}", [2, 2]
            x = graph.add("MaxPool", [x], name, kernel_shape=sides, strides=sides, ceil_mode=ceil_mode)
    return x


def _product(graph: Graph, net: Net, layer: str, rows: str, name: str) -> str:
    """An FC layer on rows (B,D)."""
    fc = net.layer(layer)
    names = [graph.store(f"{layer}.weight", fc.weight.flatten(1)), graph.store(f"{layer}.bias", fc.bias)]
    return graph.add("Gemm", [rows, *names], name, transB=1)


def _convolution(graph: Graph, net: Net, name: str, x: str) -> str:
    layer = net.layer(name)
    padding = layer.padding[0]
    assert isinstance(padding, int)
    inputs = [x, graph.store(f"{name}.weight", layer.weight), graph.store(f"{name}.bias", layer.bias)]
    x = graph.add("Conv", inputs, name, kernel_shape=list(layer.kernel_size), pads=[padding] * 4)
    return graph.add("Relu", [x], f"{name}_relu")
