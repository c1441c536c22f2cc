import numpy as np
import pytest
from ncnn_graphs import closed_graph, sample_layer

from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, LINEAR_TYPES, build_layer
from mbv3ssd_deploy.ncnn_graph.weight_bin import with_storage


def storages(graph):
    return {(layer.type, w.role): w.storage for layer in graph.layers for w in layer.weights}


def test_only_weights_with_a_storage_word_become_float16():
    layers = (
        sample_layer(type_, type_)
        for type_ in ("Convolution", "ConvolutionDepthWise", "InnerProduct", "MemoryData", "Scale")
    )
    graph = with_storage(closed_graph(*layers), Storage.FLOAT16)

    assert {key for key, storage in storages(graph).items() if storage is Storage.FLOAT16} == {
        ("Convolution", "weight"),
        ("ConvolutionDepthWise", "weight"),
        ("InnerProduct", "weight"),
    }
    check_graph(graph)


def test_constants_stay_float32_even_where_they_could_be_flagged():
    layer = sample_layer("MemoryData", load_type=0)

    assert with_storage(NcnnGraph((layer,)), Storage.FLOAT16).layers == (layer,)


def inner_product(numbers, storage=Storage.FLOAT32):
    weight = Weight("weight", np.float32(numbers), storage)
    params = {"num_output": 1, "weight_data_size": len(numbers)}
    return NcnnGraph((build_layer("InnerProduct", "i", ("x",), ("y",), params, weights=(weight,)),))


@pytest.mark.parametrize("storage", [Storage.FLOAT32, Storage.FLOAT16])
def test_denormal_weights_become_zero(storage):
    (layer,) = with_storage(inner_product([1e-31, -1e-31, -1e-29, 0.5]), storage).layers

    np.testing.assert_array_equal(layer.weights[0].data, np.float32([0, 0, -1e-29, 0.5]))


def test_a_weight_beyond_float16_stays_float32():
    (layer,) = with_storage(inner_product([65505.0, 1.0]), Storage.FLOAT16).layers

    assert layer.weights[0].storage is Storage.FLOAT32


@pytest.mark.parametrize("numbers", [[6e-5, 1e-7], [-1e-9, 3e-9]])
def test_weights_that_float16_would_lose_stay_float32(numbers):
    (layer,) = with_storage(inner_product(numbers), Storage.FLOAT16).layers

    assert layer.weights[0].storage is Storage.FLOAT32


@pytest.mark.parametrize("numbers", [[6.2e-5, 1e-7], [0.0, 0.0], [0.0, -1e-31]])
def test_small_weights_that_float16_holds_become_float16(numbers):
    (layer,) = with_storage(inner_product(numbers), Storage.FLOAT16).layers

    assert layer.weights[0].storage is Storage.FLOAT16


def test_back_to_float32():
    (layer,) = with_storage(inner_product([0.5], Storage.FLOAT16), Storage.FLOAT32).layers

    assert layer.weights[0].storage is Storage.FLOAT32


def test_int8_is_not_this_functions_work():
    with pytest.raises(ValueError, match="calibration"):
        with_storage(NcnnGraph(()), Storage.INT8)


def test_the_converted_types_have_a_flagged_weight():
    assert all(LAYERS[type_].weights[0].flagged for type_ in LINEAR_TYPES)
