import re
from dataclasses import replace

import ncnn_child
import numpy as np
import pytest
from ncnn_graphs import sample_layer
from zoo import SHARED

from mbv3ssd_deploy.ncnn_graph.check import find_problems
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, build_layer
from mbv3ssd_deploy.ncnn_graph.param_text import inspect_param
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes

REFERENCE = SHARED / "data" / "reference" / "mobilenetv3_ssdlite_voc.param"
IMAGE = (8, 7, 6)


def input_layer(name, shape):
    names = {1: "w", 2: "hw", 3: "chw", 4: "cdhw"}[len(shape)]
    return build_layer("Input", name, (), (name,), dict(zip(names, shape, strict=True)))


def fed(type_, *shapes, outputs=1, **changes):
    """One layer behind Inputs of these shapes; parameters are those of SAMPLES unless changed."""
    inputs = tuple(f"in{i}" for i in range(len(shapes)))
    tops = tuple(f"out{i}" for i in range(outputs))
    layer = sample_layer(type_, "it", inputs, tops, **changes)
    return NcnnGraph((*map(input_layer, inputs, shapes), layer))


WINDOW = {"global_pooling": 0, "kernel_w": 3, "stride_w": 2}
FITTING = [
    *((type_, (IMAGE,), {}) for type_ in ("HardSwish", "ReLU", "Flatten", "Scale", "BatchNorm")),
    ("Convolution", (IMAGE,), {}),
    ("Convolution", (IMAGE,), {"stride_w": 2, "stride_h": 3, "pad_bottom": 0, "dilation_w": 2}),
    ("Convolution", (IMAGE,), {"pad_left": -233, "stride_w": 2}),
    ("Convolution", (IMAGE,), {"pad_left": -234, "stride_w": 4}),
    ("ConvolutionDepthWise", (IMAGE,), {"stride_w": 2, "pad_left": 1}),
    ("ConvolutionDepthWise", (IMAGE,), {"group": 4, "weight_data_size": 144}),
    ("InnerProduct", ((8,),), {}),
    ("InnerProduct", ((2, 2, 2),), {}),
    ("InnerProduct", ((3, 8),), {}),
    ("Pooling", (IMAGE,), {}),
    ("Pooling", (IMAGE,), {"global_pooling": 0, "adaptive_pooling": 1, "out_w": 1}),
    ("Pooling", (IMAGE,), {"global_pooling": 0, "adaptive_pooling": 1, "out_w": 3, "out_h": -233}),
    *(("Pooling", (IMAGE,), WINDOW | {"pad_mode": mode}) for mode in (0, 1, 2, 3)),
    ("Pooling", (IMAGE,), WINDOW | {"pad_left": 1, "kernel_w": 2, "stride_w": 3}),
    ("BinaryOp", (IMAGE,), {}),
    *(
        ("BinaryOp", shapes, {"with_scalar": 0})
        for shapes in (
            (IMAGE, IMAGE),
            (IMAGE, (8,)),
            ((8,), IMAGE),
            (IMAGE, (6,)),
            (IMAGE, (8, 1, 1)),
            ((1,), IMAGE),
            (IMAGE, (1, 7, 1)),
            ((3, 4), (3,)),
        )
    ),
    ("Eltwise", (IMAGE, IMAGE), {}),
    ("Softmax", ((5, 4),), {}),
    ("Softmax", (IMAGE,), {"axis": -1}),
    *(("Permute", (IMAGE,), {"order_type": order}) for order in range(6)),
    *(("Permute", ((5, 4),), {"order_type": order}) for order in range(2)),
    ("Reshape", (IMAGE,), {}),
    ("Reshape", (IMAGE,), {"w": -1, "h": -233}),
    ("Reshape", (IMAGE,), {"w": 0, "h": -1, "c": 4}),
    ("Reshape", ((7, 6),), {"w": 3, "h": 2, "c": -1}),
    ("Concat", (IMAGE, (8, 2, 6)), {}),
    ("Concat", ((5, 4), (5, 1), (5, 2)), {"axis": -1}),
    *(
        ("Crop", (shape,), {"outw": 0, "outh": 0, "outc": 0} | limits)
        for shape, limits in (
            (IMAGE, {"starts": (2, 1), "ends": (5, 4), "axes": (0, 2)}),
            ((7, 6), {"starts": (1,), "ends": (6,), "axes": (1,)}),
        )
    ),
    ("Normalize", (IMAGE,), {}),
    ("Normalize", (IMAGE,), {"channel_shared": 1, "scale_data_size": 1}),
    ("Interp", (IMAGE,), {}),
    ("PriorBox", (IMAGE,), {}),
    ("PriorBox", (IMAGE,), {"min_sizes": (9.0, 20.0), "max_sizes": (), "flip": 0}),
    ("PriorBox", (IMAGE, (3, 30, 20)), {"image_width": -233}),
    ("Split", (IMAGE,), {}),
    ("MemoryData", (), {"w": 3, "h": 2, "c": 4}),
]


@pytest.fixture(scope="module")
def from_ncnn():
    """The shapes that the real ncnn gives in all cases, side by side in one network."""
    layers, images = [], {}
    for index, (type_, shapes, changes) in enumerate(FITTING):
        for layer in fed(type_, *shapes, **changes).layers:
            names = {"inputs": layer.inputs, "outputs": layer.outputs}
            names = {
                key: tuple(f"{index}_{blob}" for blob in value) for key, value in names.items()
            }
            layers.append(replace(layer, name=f"{index}_{layer.name}", **names))
        images |= {f"{index}_in{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    outputs = [f"{index}_out0" for index in range(len(FITTING))]
    found = ncnn_child.run_graph(NcnnGraph(tuple(layers)), images, outputs)
    return [blob.shape for blob in found.values()]


@pytest.mark.parametrize("index", range(len(FITTING)), ids=lambda index: FITTING[index][0])
def test_shapes_are_those_of_ncnn(from_ncnn, index):
    type_, shapes, changes = FITTING[index]

    found = infer_shapes(fed(type_, *shapes, **changes))

    assert found.problems == ()
    assert found.blobs["out0"] == from_ncnn[index]


def test_slices_have_their_own_shapes():
    found = infer_shapes(fed("Slice", IMAGE, outputs=3, slices=(2, -233, -233)))

    assert [found.blobs[f"out{i}"] for i in range(3)] == [(2, 7, 6), (3, 7, 6), (3, 7, 6)]


UNFIT = {
    "channels of a convolution": (
        ("Convolution", (7, 7, 6)),
        {},
        "288 does not fit an input of 7 channels, which takes 252 numbers",
    ),
    "a convolution of a vector": (("Convolution", (8,)), {}, r"takes an image \(c, h, w\)"),
    "groups": (("ConvolutionDepthWise", (9, 7, 6)), {}, "9 channels cannot be cut into 8 groups"),
    "too small": (("ConvolutionDepthWise", (8, 2, 6)), {}, "a window of 3 is larger than"),
    "features": (("InnerProduct", (9,)), {}, r"weights for 8 numbers do not fit an input \(9,\)"),
    "a table in an image": (("BinaryOp", IMAGE, (7, 6)), {"with_scalar": 0}, "cannot be combined"),
    "unequal": (("Eltwise", IMAGE, (8, 7, 1)), {}, "takes equal shapes"),
    "softmax axis": (("Softmax", (5,)), {}, "axis 1 does not exist"),
    "scale": (("Scale", (9, 1, 1)), {}, "scale_data_size 8 does not fit"),
    "normalize": (("Normalize", (9, 1, 1)), {}, "scale_data_size 8 is not 9"),
    "reshape": (
        ("Reshape", (5, 4)),
        {},
        r"20 numbers of \(5, 4\) cannot take the shape \(-1, 21\)",
    ),
    "concat": (("Concat", (5, 4), (6, 4)), {}, "cannot be joined along axis 1"),
    "concat of ranks": (("Concat", (5, 4), (5, 4, 1)), {"axis": 0}, "cannot be joined"),
    "slices": (("Slice", (4, 4)), {"slices": (3,)}, "do not fit 4"),
    "slice count": (("Slice", (4, 4)), {}, "2 slices for 1 blobs"),
    "offsets": (("DetectionOutput", (9,), (2, 21), (2, 8)), {}, "offsets do not fit 2 priors"),
    "scores": (("DetectionOutput", (8,), (2, 20), (2, 8)), {}, "scores do not fit 2 priors of 21"),
    "no variances": (("DetectionOutput", (8,), (2, 21), (1, 8)), {}, "corners above variances"),
}


@pytest.mark.parametrize(("layer", "changes", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_found(layer, changes, message):
    (problem,) = infer_shapes(fed(*layer, **changes)).problems

    assert re.search(message, problem.message)


def test_the_checker_reports_it():
    (problem,) = find_problems(fed("Convolution", (7, 7, 6)))

    assert problem.startswith("Convolution 'it': weight_data_size 288 does not fit")


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the published reference model is not here")
def test_the_published_model_has_a_shape_for_every_blob_but_the_detections():
    first, *others = inspect_param(REFERENCE.read_text()).graph.layers
    sized = replace(first, params={"w": 300, "h": 300, "c": 3})

    found = infer_shapes(NcnnGraph((sized, *others)))

    assert found.problems == ()
    assert len(found.blobs) == 469
    assert found.blobs["mbox_priorbox"] == (2, 4 * 2268)


def test_what_is_unknown_stays_unknown():
    unsized = (
        build_layer("Input", "x", (), ("x",)),
        sample_layer("Convolution", "c", ("x",), ("y",)),
    )
    found = infer_shapes(NcnnGraph(unsized))

    assert (dict(found.blobs), found.problems) == ({}, ())


def test_detections_have_no_shape_of_their_own():
    found = infer_shapes(fed("DetectionOutput", (8,), (2, 21), (2, 8)))

    assert found.problems == ()
    assert "out0" not in found.blobs


def test_every_layer_type_is_tried_or_known_to_be_unknown():
    tried = {type_ for type_, _, _ in FITTING} | {layer[0] for layer, _, _ in UNFIT.values()}
    elementwise = {"HardSigmoid", "Clip", "Sigmoid", "Swish", "Mish", "ELU", "UnaryOp", "Dropout"}

    unknown = set(LAYERS) - tried - elementwise

    assert unknown == {"Padding", "Reduction", "Input", "Noop"}
