import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from ncnn_graphs import closed_graph, graphs, sample_layer, weights_for

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import parse_bin, render_bin

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def inner_product(weight, storage=Storage.FLOAT32, bias=(0.5,), **params):
    weight = np.asarray(weight, dtype=np.int8 if storage is Storage.INT8 else np.float32)
    weights = (Weight("weight", weight, storage), Weight("bias", np.float32(bias)))
    params = {"num_output": 1, "bias_term": 1, "weight_data_size": weight.size} | params
    return build_layer("InnerProduct", "ip", ("x",), ("y",), params, weights=weights)


@given(graphs())
@SLOW
def test_reading_what_was_written_gives_the_same_weights(graph):
    data = render_bin(graph)

    assert len(data) % 4 == 0
    assert parse_bin(parse_param(render_param(graph)), data) == graph


# Pinned because the .bin has no header: these bytes are the format.
GOLDENS = {
    "float32": (Storage.FLOAT32, (1.0, -2.0), "00000000 0000803f 000000c0 0000003f"),
    "float16": (Storage.FLOAT16, (1.0, -2.0, 0.5), "476b3001 003c00c0 00380000 0000003f"),
}


@pytest.mark.parametrize(("storage", "numbers", "expected"), GOLDENS.values(), ids=GOLDENS)
def test_the_bytes(storage, numbers, expected):
    graph = closed_graph(inner_product(numbers, storage))

    assert render_bin(graph).hex(" ", 4) == expected


def test_int8_is_padded_and_followed_by_its_scales():
    layer = inner_product((1, -2, 3), Storage.INT8, int8_scale_term=1)
    scales = (Weight("weight_scales", np.float32([2.0])), Weight("bottom_scale", np.float32([1.0])))
    layer = build_layer(
        "InnerProduct", "ip", ("x",), ("y",), layer.params, weights=(*layer.weights, *scales)
    )
    data = render_bin(closed_graph(layer))

    assert data.hex(" ", 4) == "384b0d00 01fe0300 0000003f 00000040 0000803f"
    assert parse_bin(closed_graph(layer), data) == closed_graph(layer)


def test_constants_are_bare_and_dense():
    layer = sample_layer("MemoryData", w=3, h=2, c=2)

    assert render_bin(NcnnGraph((layer,))) == layer.weights[0].data.tobytes()


def test_ncnns_own_word_for_float32_is_read():
    graph = closed_graph(inner_product((1.0, 2.0)))
    data = struct.pack("<Ifff", 0x0002C056, 1.0, 2.0, 0.5)

    assert parse_bin(graph, data) == graph


def test_a_float16_weight_comes_back_rounded():
    graph = closed_graph(inner_product((0.1, 0.2), Storage.FLOAT16))

    read = parse_bin(graph, render_bin(graph)).layers[1].weights[0]

    assert read.storage is Storage.FLOAT16
    np.testing.assert_array_equal(read.data, np.float16([0.1, 0.2]).astype(np.float32))


GOOD = closed_graph(inner_product((1.0, 2.0)))
BROKEN = {
    "cut off": (lambda d: d[:-4], r"ends at byte 12, within bias of InnerProduct 'ip'"),
    "cut within a number": (lambda d: d[:-1], "within bias"),
    "empty": (lambda _: b"", "within the storage word of weight"),
    "too long": (lambda d: d + bytes(4), "4 bytes follow the last weight, at byte 16"),
    "bfloat16": (lambda d: struct.pack("<I", 0x01348B83) + d[4:], "is bfloat16: .* byte 0"),
    "a table": (lambda d: b"\1" + d[1:], "unknown storage .* 0x00000001"),
    "int8 without scales": (
        lambda d: struct.pack("<I", 0x000D4B38) + bytes(4) + d[-4:],
        "int8 without int8_scale_term, which crashes ncnn",
    ),
    "not a number": (lambda d: d[:-4] + struct.pack("<f", float("nan")), "bias has 1 numbers that"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused(damage, message):
    with pytest.raises(FormatError, match=message) as caught:
        parse_bin(GOOD, damage(render_bin(GOOD)), source="net.bin")

    assert caught.value.where == "net.bin"


def test_weights_that_do_not_fit_are_all_named_before_anything_is_written():
    short = build_layer(
        "Scale",
        "a",
        ("x",),
        ("y",),
        {"scale_data_size": 3},
        weights=weights_for("Scale", {"scale_data_size": 2}),
    )
    bare = build_layer("Scale", "b", ("y",), ("z",), {"scale_data_size": 3})

    with pytest.raises(FormatError) as caught:
        render_bin(closed_graph(short, bare))

    assert "Scale 'a': scale needs 3 numbers and has 2" in caught.value.message
    assert "Scale 'b': needs the weights scale, in this order, and has none" in caught.value.message
