"""Small ncnn graphs for tests: one literal layer of each type, and generated whole graphs."""

import numpy as np
from hypothesis import strategies as st

from mbv3ssd_deploy.ncnn_graph.check import ACTIVATIONS
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, build_layer

# What each layer type needs at least, so that ncnn and our checker accept it.
SAMPLES = {
    "Input": {"w": 4, "h": 4, "c": 8},
    "MemoryData": {"w": 3, "h": 2},
    "Convolution": {
        "num_output": 4,
        "kernel_w": 3,
        "pad_left": 1,
        "bias_term": 1,
        "weight_data_size": 288,
        "activation_type": 6,
        "activation_params": (1 / 6, 0.5),
    },
    "ConvolutionDepthWise": {
        "num_output": 8,
        "kernel_w": 3,
        "weight_data_size": 72,
        "group": 8,
        "activation_type": 3,
        "activation_params": (0.0, 6.0),
    },
    "InnerProduct": {"num_output": 5, "bias_term": 1, "weight_data_size": 40},
    "Pooling": {"pooling_type": 1, "global_pooling": 1},
    "BinaryOp": {"op_type": 2, "with_scalar": 1, "b": 3.0},
    "Eltwise": {"op_type": 1, "coeffs": (1.0, -0.5)},
    "HardSwish": {"alpha": 1 / 6},
    "HardSigmoid": {"alpha": 1 / 6},
    "ReLU": {"slope": 0.1},
    "Clip": {"min": 0.0, "max": 6.0},
    "Softmax": {"axis": 1, "fixbug0": 1},
    "Permute": {"order_type": 3},
    "Reshape": {"w": 21, "h": -1},
    "Concat": {"axis": 1},
    "Slice": {"slices": (2, -233)},
    "Normalize": {"eps": 1e-12, "eps_mode": 1, "scale_data_size": 8},
    "PriorBox": {
        "min_sizes": (60.0,),
        "max_sizes": (105.0,),
        "aspect_ratios": (2.0, 3.0),
        "image_width": 300,
        "image_height": 200,
        "step_width": 16.0,
        "offset": 0.5,
    },
    "DetectionOutput": {"num_class": 21, "nms_threshold": 0.45, "confidence_threshold": 0.01},
    "Crop": {"outw": 2, "outh": 2, "outc": 2},
    "Interp": {"resize_type": 2, "output_height": 8, "output_width": 8},
    "Padding": {"top": 1, "left": 2, "value": 0.5},
    "Scale": {"scale_data_size": 8, "bias_term": 1},
    "BatchNorm": {"channels": 8, "eps": 1e-5},
    "Reduction": {"operation": 3, "reduce_all": 0, "axes": (1, 2), "fixbug0": 1},
}


def weights_for(type_, params, seed=0):
    """Weights of the right lengths, normally distributed."""
    random = np.random.default_rng(seed)
    return tuple(
        Weight(field.role, random.standard_normal(length).astype(np.float32))
        for field, length in LAYERS[type_].weights_of(params)
    )


def sample_layer(type_, name="layer", inputs=None, outputs=None, **changes):
    """The literal layer of that type, its parameters changed, its weights seeded."""
    schema = LAYERS[type_]
    params = SAMPLES.get(type_, {}) | changes
    inputs = (
        tuple(f"{name}_in{i}" for i in range(schema.inputs.least)) if inputs is None else inputs
    )
    tops = max(schema.outputs.least, 1)
    outputs = tuple(f"{name}_out{i}" for i in range(tops)) if outputs is None else outputs
    layer = build_layer(type_, name, inputs, outputs, params)
    return build_layer(
        type_, name, inputs, outputs, params, weights=weights_for(type_, layer.params)
    )


def closed_graph(*layers):
    """A graph of these layers, with an Input for every blob that none of them makes."""
    made = {blob for layer in layers for blob in layer.outputs}
    wanted = dict.fromkeys(blob for layer in layers for blob in layer.inputs if blob not in made)
    inputs = (build_layer("Input", blob, (), (blob,)) for blob in wanted)
    return NcnnGraph((*inputs, *layers))


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=9
)
_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
_INTS = st.integers(-(2**31), 2**31 - 1)
_VALUES = {
    "int": _INTS,
    "float": _FLOATS,
    "ints": st.lists(_INTS, max_size=4).map(tuple),
    "floats": st.lists(_FLOATS, max_size=4).map(tuple),
}
# Parameters that decide whether a layer can exist come from SAMPLES; these are free.
_FREE = {
    "Convolution": ("pad_left", "pad_bottom", "pad_value"),
    "ConvolutionDepthWise": ("pad_right", "pad_top"),
    "Pooling": ("pooling_type", "pad_left", "pad_bottom", "pad_mode", "out_w"),
    "InnerProduct": (),
    "BinaryOp": ("op_type", "b"),
    "Softmax": (),
    "Reduction": ("operation", "coeff", "axes", "keepdims"),
    "MemoryData": (),
    "Clip": (),
    "Normalize": ("across_spatial", "across_channel", "eps", "eps_mode"),
    "PriorBox": ("variances_1", "flip", "clip", "step_width", "step_height", "offset"),
    "DetectionOutput": ("nms_threshold", "confidence_threshold", "variances_3"),
    "Padding": ("top", "type", "value", "front", "behind"),
    "Scale": (),
    "BatchNorm": ("eps",),
}


@st.composite
def graphs(draw):
    """Graphs that our checker accepts: every layer type, every free parameter, unique names."""
    types = draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6))
    names = iter(draw(st.lists(_NAMES, min_size=60, max_size=60, unique=True)))
    layers = []
    for index, type_ in enumerate(types):
        schema = LAYERS[type_]
        free = (*_FREE.get(type_, [f.name for f in schema.fields]), "shape_hints", "featmask")
        chosen = draw(st.sets(st.sampled_from(free), max_size=5))
        params = SAMPLES.get(type_, {}) | {n: draw(_VALUES[schema.field(n).kind]) for n in chosen}
        if type_ in {"Convolution", "ConvolutionDepthWise"}:
            params |= draw(_convolution_params(type_))
        inputs = tuple(next(names) for _ in range(schema.inputs.least))
        outputs = tuple(next(names) for _ in range(max(schema.outputs.least, 1)))
        layer = build_layer(type_, next(names), inputs, outputs, params)
        weights = tuple(
            _stored(w, draw(st.sampled_from([Storage.FLOAT32, Storage.FLOAT16])))
            if field.flagged
            else w
            for (field, _), w in zip(
                schema.weights_of(layer.params),
                weights_for(type_, layer.params, index),
                strict=True,
            )
        )
        layers.append(build_layer(type_, layer.name, inputs, outputs, params, weights=weights))
    return closed_graph(*layers)


def _stored(weight, storage):
    """The weight as a graph holds it that was read back: float16 numbers are already rounded."""
    kind = np.float16 if storage is Storage.FLOAT16 else np.float32
    return Weight(weight.role, weight.data.astype(kind).astype(np.float32), storage)


@st.composite
def _convolution_params(draw, type_):
    small = st.integers(1, 4)
    width, height, group = draw(small), draw(small), draw(small)
    outputs, inputs = group * draw(small), draw(small)
    kind = draw(st.sampled_from(sorted(ACTIVATIONS)))
    limits = draw(st.tuples(*[_FLOATS] * ACTIVATIONS[kind]))
    params = {
        "num_output": outputs,
        "kernel_w": width,
        "kernel_h": height,
        "stride_h": draw(small),
        "dilation_w": draw(small),
        "weight_data_size": outputs * inputs * width * height,
        "bias_term": draw(st.integers(0, 1)),
        "activation_type": kind,
        "activation_params": limits,
    }
    return params | ({"group": group} if type_ == "ConvolutionDepthWise" else {})
