import numpy as np
import pytest
from hypothesis import given, settings
from ncnn_graphs import SAMPLES, closed_graph, graphs, sample_layer

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.check import check_graph, find_problems
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, build_layer


@pytest.mark.parametrize("type_", LAYERS)
def test_a_good_layer_of_each_type_passes(type_):
    assert find_problems(closed_graph(sample_layer(type_))) == ()


@given(graphs())
@settings(max_examples=20, deadline=None)
def test_generated_graphs_pass(graph):
    check_graph(graph)


# Each is a way in which ncnn loads a layer and then crashes or computes something else.
WRONG_PARAMETERS = {
    "a scalar that is not given": ("BinaryOp", {"with_scalar": 0}, "1 blobs with with_scalar 0"),
    "softmax of 2018": ("Softmax", {"fixbug0": 0}, "axis 1 needs fixbug0 = 1"),
    "reduction of 2018": ("Reduction", {"fixbug0": 0}, "axes need fixbug0 = 1"),
    "no limit": ("DetectionOutput", {"keep_top_k": -1}, "keep_top_k -1 throws"),
    "no classes": ("DetectionOutput", {"num_class": 1}, "leaves no class"),
    "no sizes": ("PriorBox", {"min_sizes": ()}, "min_sizes is empty"),
    "too few max sizes": ("PriorBox", {"min_sizes": (1.0, 2.0)}, "only 1 max_sizes"),
    "no second blob": ("PriorBox", {"image_width": -233}, "second blob, which is not there"),
    "no image": ("PriorBox", {"image_width": 0}, "has no pixels"),
    "a gap in the rank": ("MemoryData", {"h": 0, "c": 2}, "has no h"),
    "a constant without a size": ("MemoryData", {"w": 0, "h": 0}, "has no w"),
    "a negative size": ("MemoryData", {"w": -1}, "has no "),
    "upside down": ("Clip", {"min": 7.0}, "min 7.0 is above max 6.0"),
    "weight count": (
        "Convolution",
        {"weight_data_size": 287},
        "287 is not a multiple of num_output",
    ),
    "no weights": ("Convolution", {"weight_data_size": 0}, "0 is not a multiple"),
    "no stride": ("Convolution", {"stride_h": 0}, "stride_h 0 must be at least 1"),
    "no window": ("Pooling", {"global_pooling": 0}, "kernel_h 0 and kernel_w 0 must be at least 1"),
    "groups": ("ConvolutionDepthWise", {"group": 3}, "num_output 8 is not a multiple of group 3"),
    "activation": ("Convolution", {"activation_type": 7}, "7 is not one of 0..6"),
    "activation without limits": ("InnerProduct", {"activation_type": 3}, "needs 2 .* got 0"),
    "int8 term": ("Convolution", {"int8_scale_term": 3}, "int8_scale_term 3 is not one of"),
    "dynamic weights": ("Convolution", {"dynamic_weight": 1}, "1 blobs with dynamic_weight 1"),
    "inner product": ("InnerProduct", {"weight_data_size": 41}, "41 is not a multiple of"),
    "an empty scale": ("Normalize", {"scale_data_size": 0}, "scale_data_size = 0 numbers"),
}


@pytest.mark.parametrize(
    ("type_", "changes", "message"), WRONG_PARAMETERS.values(), ids=WRONG_PARAMETERS
)
def test_parameters_that_do_not_belong_together_are_found(type_, changes, message):
    schema = LAYERS[type_]
    inputs = tuple(f"in{i}" for i in range(schema.inputs.least))
    layer = build_layer(type_, "it", inputs, ("out",), SAMPLES[type_] | changes)

    with pytest.raises(FormatError, match=rf"{type_} 'it': .*{message}"):
        check_graph(closed_graph(layer))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (("a", "b"), ("c",), "takes 1 blobs, got 2"),
        (("a",), ("b", "c"), "gives 1 blobs, got 2"),
        ((), ("c",), "takes 1 blobs, got 0"),
    ],
)
def test_a_wrong_number_of_blobs_is_found(inputs, outputs, message):
    (problem,) = find_problems(closed_graph(build_layer("ReLU", "r", inputs, outputs)))

    assert message in problem


def with_weight(weight):
    params = {"num_output": 1, "weight_data_size": 2}
    return closed_graph(
        build_layer("InnerProduct", "ip", ("x",), ("y",), params, weights=(weight,))
    )


WRONG_WEIGHTS = {
    "length": (Weight("weight", np.zeros(3, np.float32)), "needs 2 numbers and has 3"),
    "role": (Weight("bias", np.zeros(2, np.float32)), "needs the weights weight, .* has bias"),
    "nan": (Weight("weight", np.float32([np.nan, 1])), "1 numbers that are NaN or infinite"),
    "double": (Weight("weight", np.zeros(2)), "stored as float32 but holds float64"),
    "float16 range": (
        Weight("weight", np.float32([7e4, 0]), Storage.FLOAT16),
        "beyond float16's 65504",
    ),
    "int8 without scales": (
        Weight("weight", np.zeros(2, np.int8), Storage.INT8),
        "int8 without int8_scale_term",
    ),
}


@pytest.mark.parametrize(("weight", "message"), WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_wrong_weights_are_found(weight, message):
    with pytest.raises(FormatError, match=message):
        check_graph(with_weight(weight))


def test_a_raw_weight_has_no_word_for_another_storage():
    weight = Weight("scale", np.zeros(2, np.float32), Storage.FLOAT16)
    layer = build_layer("Scale", "s", ("x",), ("y",), {"scale_data_size": 2}, weights=(weight,))

    (problem,) = find_problems(closed_graph(layer))

    assert "scale has no storage word" in problem


def test_the_same_blob_twice_in_one_layer_is_allowed():
    square = build_layer("BinaryOp", "square", ("x", "x"), ("y",), {"op_type": 2})

    check_graph(closed_graph(square))


def test_problems_come_in_the_order_of_the_layers_and_all_at_once():
    a = build_layer("ReLU", "a", ("x",), ("y",))
    b = build_layer("Sigmoid", "b", ("x", "y"), ("y",))

    assert find_problems(NcnnGraph((a, b))) == (
        "ReLU 'a': no layer makes blob 'x'",
        "Sigmoid 'b': takes 1 blobs, got 2",
        "Sigmoid 'b': no layer makes blob 'x'",
        "Sigmoid 'b': blob 'y' is made twice",
    )
