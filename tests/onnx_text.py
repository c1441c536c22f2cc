"""Small ONNX models from text, run in ONNX Runtime and, lowered, in the real ncnn."""

import math
from collections import Counter

import ncnn_child
import numpy as np
import onnx
import onnx.parser
import onnxruntime

from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.fuse import fuse_graph
from mbv3ssd_deploy.ncnn_graph.insert_split import insert_splits
from mbv3ssd_deploy.ncnn_graph.lower import lower_model


def onnx_model(text, weights=None, *, opset=17, seed=0):
    """A model `x => y` from ONNX's own text; `weights` are arrays, or shapes of seeded numbers."""
    graph = onnx.parser.parse_graph(text)
    for index, (name, value) in enumerate((weights or {}).items()):
        is_shape = isinstance(value, tuple)
        array = numbers(value, seed + index + 1) if is_shape else np.asarray(value)
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.checker.check_model(model)
    return model


def numbers(shape, seed=0):
    """Seeded float32 of a scale that keeps a small net's values near 1."""
    random = np.random.default_rng(seed)
    scale = 1 / math.sqrt(max(1, math.prod(shape[1:]))) if len(shape) == 4 else 1.0
    return (scale * random.normal(size=shape)).astype(np.float32)


def onnx_outputs(model, x):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def lowered(model):
    """The unfused graph, its outputs named as in ONNX."""
    return lower_model(model, {output.name: output.name for output in model.graph.output}).graph


def fused(model):
    return fuse_graph(lowered(model), [output.name for output in model.graph.output])


def types(graph):
    """Layer types in running order, without Input."""
    return [layer.type for layer in graph.layers if layer.type != "Input"]


def type_counts(graph):
    return Counter(types(graph))


def run_ncnn(graph, x, outputs):
    """The blobs `outputs` as the real ncnn computes them for one image `x` (1, ...)."""
    final = insert_splits(graph)
    check_graph(final)
    return ncnn_child.run_graph(final, {"input": x[0]}, list(outputs))


def input_of(model, seed=0, scale=3.0):
    """A seeded input that reaches both ends of the hard activations."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return scale * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_lowers(model, graph=None, *, atol=1e-5):
    """Assert that `graph` (the lowered model) has the numbers and the shapes of the ONNX model."""
    graph = lowered(model) if graph is None else graph
    x = input_of(model)
    expected = onnx_outputs(model, x)
    for name, actual in run_ncnn(graph, x, expected).items():
        assert actual.shape == expected[name].shape[1:]
        np.testing.assert_allclose(actual, expected[name][0], rtol=1e-5, atol=atol)
