"""Small ONNX models from text, run in ONNX Runtime and, lowered, in the real ncnn."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Collection

import ncnn_child
import numpy as np
import onnx
import onnx.parser
import onnxruntime

from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.edit import insert_splits
from mbv3ssd_deploy.ncnn_graph.fuse.passes import fuse_graph
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_model


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
    return lower_model(model, {output.name: output.name for output in model.graph.output})[0]


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
    names = [output.name for output in model.graph.output]
    assert_numbers(model, run_ncnn(graph, x, names), atol=atol)


def assert_numbers(model, blobs, *, atol=1e-5):
    """Assert that `blobs` are what ONNX Runtime makes of `input_of(model)`."""
    for name, expected in onnx_outputs(model, input_of(model)).items():
        assert blobs[name].shape == expected.shape[1:]
        np.testing.assert_allclose(blobs[name], expected[0], rtol=1e-5, atol=atol)


class Table(Collection):
    """Models that share one run of ncnn: starting a process costs more than running them."""

    def __init__(self, models, make=lowered):
        self.models = models
        self._make = make

    def __iter__(self):
        return iter(self.models)

    def __len__(self):
        return len(self.models)

    def __contains__(self, case):
        return case in self.models

    def assert_numbers(self, case, *, atol=1e-5):
        """Assert that the graph of `case` has the numbers and the shapes of its ONNX model."""
        model = self.models[case]
        number = list(self.models).index(case)
        blobs = {o.name: self._blobs[f"{number}:{o.name}"] for o in model.graph.output}
        assert_numbers(model, blobs, atol=atol)

    @functools.cached_property
    def graphs(self):
        return {case: self._make(model) for case, model in self.models.items()}

    @functools.cached_property
    def _blobs(self):
        layers, inputs, outputs = [], {}, []
        for number, (case, model) in enumerate(self.models.items()):
            names = {o.name: f"{number}:{o.name}" for o in model.graph.output}
            layers += [_apart(layer, str(number), names) for layer in self.graphs[case].layers]
            inputs[f"{number}/input"] = input_of(model)[0]
            outputs += names.values()
        whole = insert_splits(NcnnGraph(tuple(layers)))
        check_graph(whole)
        return ncnn_child.run_graph(whole, inputs, outputs)


def _apart(layer, prefix, names):
    """The layer with names that no other model of the table has."""

    def new(blobs):
        return tuple(names.get(blob, f"{prefix}/{blob}") for blob in blobs)

    return dataclasses.replace(
        layer,
        name=f"{prefix}/{layer.name}",
        inputs=new(layer.inputs),
        outputs=new(layer.outputs),
    )
