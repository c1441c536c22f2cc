"""The layer table against the real ncnn, which must load our files and compute numpy's numbers."""

from dataclasses import replace

import ncnn_child
import numpy as np
import pytest
from ncnn_graphs import closed_graph, sample_layer

from mbv3ssd_deploy.core.detections import softmax
from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, build_layer, param_of
from mbv3ssd_deploy.ncnn_graph.weight_bin import with_storage

RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.standard_normal((8, 7, 6)).astype(np.float32)
OTHER = RANDOM.standard_normal((8, 7, 6)).astype(np.float32)
ROWS = RANDOM.standard_normal((5, 4)).astype(np.float32)


def run(layer, *inputs, storage=Storage.FLOAT32):
    """The first output of one layer, fed with `inputs`."""
    graph = with_storage(closed_graph(layer), storage)
    check_graph(graph)
    images = dict(zip(layer.inputs, inputs, strict=True))
    return ncnn_child.run_graph(graph, images, layer.outputs[:1])[layer.outputs[0]]


def test_ncnn_loads_a_layer_of_each_type():
    # Where ncnn counts the numbers of a weight otherwise than we do, all that follows is displaced.
    last = build_layer(
        "MemoryData",
        "last",
        (),
        ("last",),
        {"w": 3},
        weights=(Weight("data", np.float32([1, 2, 3])),),
    )
    layers = [sample_layer(type_, type_) for type_ in LAYERS]
    graph = NcnnGraph((*closed_graph(*layers).layers, last))
    check_graph(graph)

    found = ncnn_child.run_graph(graph, {}, ["last"])

    np.testing.assert_array_equal(found["last"], [1, 2, 3])


VARIED_WEIGHTS = (
    ("MemoryData", {"w": 2, "h": 3, "d": 2, "c": 2}),
    ("MemoryData", {"load_type": 0}),
    ("Convolution", {"bias_term": 0}),
    ("Convolution", {"int8_scale_term": 2}),
    ("Convolution", {"int8_scale_term": 102}),
    ("ConvolutionDepthWise", {"bias_term": 1}),
    ("ConvolutionDepthWise", {"int8_scale_term": 1}),
    ("ConvolutionDepthWise", {"int8_scale_term": 2}),
    ("ConvolutionDepthWise", {"int8_scale_term": 101}),
    ("ConvolutionDepthWise", {"int8_scale_term": 102}),
    ("InnerProduct", {"bias_term": 0}),
    ("InnerProduct", {"int8_scale_term": 1}),
    ("Scale", {"bias_term": 0}),
    ("Padding", {"per_channel_pad_data_size": 8}),
)


@pytest.fixture(scope="module")
def marks_from_ncnn():
    """Constants that stand in the .bin behind each of VARIED_WEIGHTS, as ncnn finds them."""
    layers = []
    for index, (type_, changes) in enumerate(VARIED_WEIGHTS):
        mark = (Weight("data", np.float32([index, -index])),)
        layers += [
            sample_layer(type_, f"layer{index}", **changes),
            build_layer("MemoryData", f"m{index}", (), (f"m{index}",), {"w": 2}, weights=mark),
        ]
    outputs = [f"m{index}" for index in range(len(VARIED_WEIGHTS))]
    return ncnn_child.run_graph(closed_graph(*layers), {}, outputs)


@pytest.mark.parametrize("index", range(len(VARIED_WEIGHTS)), ids=lambda i: VARIED_WEIGHTS[i][0])
def test_ncnn_counts_the_weights_as_the_table_does(marks_from_ncnn, index):
    # the first that fails is at fault: it displaces all that follow
    np.testing.assert_array_equal(marks_from_ncnn[f"m{index}"], [index, -index])


def hard_swish(x):
    return x * (x / 6 + 0.5).clip(0, 1)


def convolved(  # noqa: PLR0913 -- what a convolution is
    image, weight, bias, *, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1
):
    """A convolution by definition. Pairs are (y, x), pads are (top, bottom, left, right)."""
    image = np.pad(image.astype(np.float64), ((0, 0), pads[:2], pads[2:]))
    outputs, depth, rows, cols = weight.shape
    reach = ((rows - 1) * dilation[0] + 1, (cols - 1) * dilation[1] + 1)
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    share = outputs // groups
    parts = [
        np.einsum(
            "cyxij,ocij->oyx",
            windows[group * depth : (group + 1) * depth],
            weight[group * share : (group + 1) * share].astype(np.float64),
        )
        for group in range(groups)
    ]
    return np.concatenate(parts) + bias.astype(np.float64)[:, None, None]


def convolution(shape, type_="Convolution", **params):
    random = np.random.default_rng(3)
    weight = random.standard_normal(shape).astype(np.float32)
    bias = random.standard_normal(shape[0]).astype(np.float32)
    params = {
        "num_output": shape[0],
        "kernel_h": shape[2],
        "kernel_w": shape[3],
        "bias_term": 1,
        "weight_data_size": weight.size,
    } | params
    weights = (Weight("weight", weight), Weight("bias", bias))
    return build_layer(type_, "c", ("x",), ("y",), params, weights=weights), weight, bias


GEOMETRY = {
    "stride_h": 2,
    "stride_w": 1,
    "dilation_h": 1,
    "dilation_w": 2,
    "pad_top": 1,
    "pad_bottom": 0,
    "pad_left": 2,
    "pad_right": 1,
}
GEOMETRY_HERE = {"stride": (2, 1), "pads": (1, 0, 2, 1), "dilation": (1, 2)}


@pytest.mark.parametrize("storage", [Storage.FLOAT32, Storage.FLOAT16])
def test_a_convolution_with_every_side_different(storage):
    layer, weight, bias = convolution((5, 8, 3, 2), **GEOMETRY)
    if storage is Storage.FLOAT16:
        weight = weight.astype(np.float16)

    found = run(layer, IMAGE, storage=storage)

    expected = convolved(IMAGE, weight, bias, **GEOMETRY_HERE)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("storage", [Storage.FLOAT32, Storage.FLOAT16])
@pytest.mark.parametrize(("outputs", "depth"), [(8, 1), (16, 1), (4, 4)])
def test_grouped_convolutions(outputs, depth, storage):
    groups = 8 // depth
    layer, weight, bias = convolution(
        (outputs, depth, 3, 3), "ConvolutionDepthWise", group=groups, pad_left=1, stride_w=2
    )
    if storage is Storage.FLOAT16:
        weight = weight.astype(np.float16)

    found = run(layer, IMAGE, storage=storage)

    expected = convolved(IMAGE, weight, bias, stride=(2, 2), pads=(1, 1, 1, 1), groups=groups)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


ACTIVATIONS = {
    "none": (0, (), lambda x: x),
    "relu": (1, (), lambda x: x.clip(0)),
    "leaky": (2, (0.1,), lambda x: np.where(x > 0, x, 0.1 * x)),
    "clip": (3, (-1.0, 2.0), lambda x: x.clip(-1, 2)),
    "sigmoid": (4, (), lambda x: 1 / (1 + np.exp(-x))),
    "mish": (5, (), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "hardswish": (6, (1 / 6, 0.5), hard_swish),
}


@pytest.mark.parametrize(("kind", "limits", "function"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_fused_activations(kind, limits, function):
    layer, weight, bias = convolution((4, 8, 1, 1), activation_type=kind, activation_params=limits)

    expected = function(convolved(IMAGE, weight, bias))
    np.testing.assert_allclose(run(layer, IMAGE), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("storage", [Storage.FLOAT32, Storage.FLOAT16])
def test_an_inner_product(storage):
    layer = sample_layer("InnerProduct", activation_type=1)
    weight, bias = (w.data for w in layer.weights)
    if storage is Storage.FLOAT16:
        weight = weight.astype(np.float16)
    vector = IMAGE[:, 0, 0]

    found = run(layer, vector, storage=storage)

    expected = (weight.reshape(5, 8).astype(np.float64) @ vector + bias).clip(0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ({"w": 5}, (5,)),
        ({"w": 5, "h": 3}, (3, 5)),
        ({"w": 3, "h": 5, "c": 2}, (2, 5, 3)),
        ({"w": 3, "h": 5, "d": 2, "c": 4}, (4, 2, 5, 3)),
    ],
)
def test_constants_keep_their_shape(dims, shape):
    layer = sample_layer("MemoryData", **({"w": 0, "h": 0} | dims))

    found = run(layer)

    np.testing.assert_array_equal(found, layer.weights[0].data.reshape(shape))


def test_a_flagged_constant_is_read():
    layer = sample_layer("MemoryData", load_type=0)

    np.testing.assert_array_equal(run(layer), layer.weights[0].data.reshape(2, 3))


def max_pooled(image, size, stride):
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride].max((3, 4))


def l2_normalised(image, scale):
    norm = np.sqrt((image.astype(np.float64) ** 2).sum(0))
    return image / np.maximum(norm, 1e-12) * scale[:, None, None]


NORMALIZE = sample_layer("Normalize")
BATCH_NORM = sample_layer("BatchNorm")
SLOPE, MEAN, VARIANCE, BIAS = (np.abs(w.data)[:, None, None] for w in BATCH_NORM.weights)
BATCH_NORM = build_layer(
    "BatchNorm",
    "bn",
    ("x",),
    ("y",),
    BATCH_NORM.params,
    weights=tuple(Weight(w.role, np.abs(w.data)) for w in BATCH_NORM.weights),
)
SCALE = sample_layer("Scale")
FACTOR, SHIFT = (w.data[:, None, None] for w in SCALE.weights)

COMPUTED = {
    "hardswish": (sample_layer("HardSwish"), (IMAGE,), hard_swish(IMAGE)),
    "hardsigmoid": (sample_layer("HardSigmoid"), (IMAGE,), (IMAGE / 6 + 0.5).clip(0, 1)),
    "relu": (sample_layer("ReLU", slope=0.0), (IMAGE,), IMAGE.clip(0)),
    "leaky relu": (sample_layer("ReLU"), (IMAGE,), np.where(IMAGE > 0, IMAGE, 0.1 * IMAGE)),
    "clip": (sample_layer("Clip", min=-0.5, max=1.0), (IMAGE,), IMAGE.clip(-0.5, 1)),
    "clip by default": (
        sample_layer("Clip", min=0, max=LAYERS["Clip"].field("max").default),
        (IMAGE,),
        IMAGE.clip(0),
    ),
    "sigmoid": (sample_layer("Sigmoid"), (IMAGE,), 1 / (1 + np.exp(-IMAGE))),
    "swish": (sample_layer("Swish"), (IMAGE,), IMAGE / (1 + np.exp(-IMAGE))),
    "mish": (sample_layer("Mish"), (IMAGE,), IMAGE * np.tanh(np.log1p(np.exp(IMAGE)))),
    "elu": (sample_layer("ELU"), (IMAGE,), np.where(IMAGE > 0, IMAGE, 0.1 * np.expm1(IMAGE))),
    "abs": (sample_layer("UnaryOp", op_type=0), (IMAGE,), np.abs(IMAGE)),
    "times scalar": (sample_layer("BinaryOp"), (IMAGE,), IMAGE * 3),
    "scalar minus": (sample_layer("BinaryOp", op_type=7), (IMAGE,), 3 - IMAGE),
    "add": (build_layer("BinaryOp", "b", ("x", "z"), ("y",)), (IMAGE, OTHER), IMAGE + OTHER),
    "gate": (
        build_layer("BinaryOp", "b", ("x", "z"), ("y",), {"op_type": 2}),
        (IMAGE, OTHER[:, 0, 0]),
        IMAGE * OTHER[:, :1, :1],
    ),
    "eltwise": (sample_layer("Eltwise"), (IMAGE, OTHER), IMAGE - 0.5 * OTHER),
    "global average": (sample_layer("Pooling"), (IMAGE,), IMAGE.mean((1, 2))),
    "max pooling": (
        sample_layer(
            "Pooling", pooling_type=0, global_pooling=0, kernel_w=3, stride_w=2, pad_mode=1
        ),
        (IMAGE,),
        max_pooled(IMAGE, 3, 2),
    ),
    "max pooling, ceil": (
        sample_layer("Pooling", pooling_type=0, global_pooling=0, kernel_w=2, stride_w=2),
        (IMAGE,),
        max_pooled(np.pad(IMAGE, ((0, 0), (0, 1), (0, 0)), mode="edge"), 2, 2),
    ),
    "adaptive": (
        sample_layer("Pooling", global_pooling=0, adaptive_pooling=1, out_w=1),
        (IMAGE,),
        IMAGE.mean((1, 2), keepdims=True),
    ),
    "to rows and columns": (sample_layer("Permute"), (IMAGE,), IMAGE.transpose(1, 2, 0)),
    "transpose": (sample_layer("Permute", order_type=1), (ROWS,), ROWS.T),
    "flatten": (sample_layer("Flatten"), (IMAGE,), IMAGE.ravel()),
    "reshape": (sample_layer("Reshape"), (IMAGE,), IMAGE.reshape(-1, 21)),
    "reshape to three": (
        sample_layer("Reshape", w=2, h=3, c=-1),
        (IMAGE,),
        IMAGE.reshape(-1, 3, 2),
    ),
    "concat": (
        build_layer("Concat", "c", ("x", "z"), ("y",)),
        (IMAGE, OTHER[:3]),
        np.concatenate((IMAGE, OTHER[:3])),
    ),
    "concat of columns": (
        build_layer("Concat", "c", ("x", "z"), ("y",), {"axis": 1}),
        (ROWS, ROWS[:, :2]),
        np.hstack((ROWS, ROWS[:, :2])),
    ),
    "slice": (sample_layer("Slice", outputs=("y", "z")), (IMAGE,), IMAGE[:2]),
    "softmax": (sample_layer("Softmax"), (ROWS,), softmax(ROWS)),
    "split": (sample_layer("Split", outputs=("y", "z")), (IMAGE,), IMAGE),
    "noop": (build_layer("Noop", "n", ("x",), ("y",)), (IMAGE,), IMAGE),
    "dropout": (sample_layer("Dropout", scale=0.5), (IMAGE,), IMAGE * 0.5),
    "crop": (
        sample_layer("Crop", woffset=1, hoffset=2, coffset=3),
        (IMAGE,),
        IMAGE[3:5, 2:4, 1:3],
    ),
    "crop by axes": (
        sample_layer("Crop", outw=0, outh=0, outc=0, starts=(2, 1), ends=(5, 4), axes=(0, 2)),
        (IMAGE,),
        IMAGE[2:5, :, 1:4],
    ),
    "nearest": (
        sample_layer("Interp", resize_type=1, output_height=14, output_width=12),
        (IMAGE,),
        IMAGE.repeat(2, 1).repeat(2, 2),
    ),
    "padding": (
        sample_layer("Padding", bottom=3, right=4),
        (IMAGE,),
        np.pad(IMAGE, ((0, 0), (1, 3), (2, 4)), constant_values=0.5),
    ),
    "scale": (SCALE, (IMAGE,), IMAGE * FACTOR + SHIFT),
    "batch norm": (
        BATCH_NORM,
        (IMAGE,),
        SLOPE * (IMAGE - MEAN) / np.sqrt(VARIANCE + 1e-5) + BIAS,
    ),
    "l2 norm": (NORMALIZE, (IMAGE,), l2_normalised(IMAGE, NORMALIZE.weights[0].data)),
    "mean of rows and columns": (sample_layer("Reduction"), (IMAGE,), IMAGE.mean((1, 2))),
}


@pytest.fixture(scope="module")
def computed_by_ncnn():
    """The first output of each of COMPUTED, all of them side by side in one network."""
    layers, images = [], {}
    for index, (layer, arrays, _) in enumerate(COMPUTED.values()):
        inputs = tuple(f"in{index}_{i}" for i in range(len(arrays)))
        outputs = tuple(f"out{index}_{i}" for i in range(len(layer.outputs)))
        layers.append(replace(layer, name=f"layer{index}", inputs=inputs, outputs=outputs))
        images |= dict(zip(inputs, arrays, strict=True))
    graph = closed_graph(*layers)
    check_graph(graph)
    found = ncnn_child.run_graph(graph, images, [layer.outputs[0] for layer in layers])
    return dict(zip(COMPUTED, found.values(), strict=True))


@pytest.mark.parametrize("name", COMPUTED)
def test_ncnn_computes_what_the_parameters_say(computed_by_ncnn, name):
    found, expected = computed_by_ncnn[name], COMPUTED[name][2]

    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# A layer that is written without its parameters computes with ncnn's defaults: these are ours.
DEFAULTS = {
    "ELU": lambda x, p: np.where(x > 0, x, p("alpha") * np.expm1(x)),
    "ReLU": lambda x, p: np.where(x > 0, x, p("slope") * x),
    "HardSwish": lambda x, p: x * (p("alpha") * x + p("beta")).clip(0, 1),
    "HardSigmoid": lambda x, p: (p("alpha") * x + p("beta")).clip(0, 1),
    "Clip": lambda x, p: x.clip(p("min"), p("max")),
    "Dropout": lambda x, p: x * p("scale"),
}


@pytest.mark.parametrize("type_", DEFAULTS)
def test_ncnns_defaults_are_the_tables(type_):
    layer = build_layer(type_, "layer", ("x",), ("y",))
    text = f"7767517\n2 2\nInput x 0 1 x\n{type_} layer 1 1 x y\n"

    found = ncnn_child.run_files(text, b"", {"x": IMAGE}, ["y"])["y"]

    expected = DEFAULTS[type_](IMAGE, lambda name: param_of(layer, name))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
