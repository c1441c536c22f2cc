"""Shipped weights compared with those of body.onnx."""

import numpy as np
import pytest

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.verification.ncnn_files import full_precision_graph
from mbv3ssd_deploy.verification.rules import Code


def graph(**weights):
    """A graph of one convolution per name: 2 outputs, 3 inputs, 1 x 1."""
    layers = [
        NcnnLayer("Convolution", name, ("x",), (name,), {"num_output": 2}, (weight,))
        for name, weight in weights.items()
    ]
    return NcnnGraph((NcnnLayer("Input", "x", (), ("x",)), *layers))


FULL = np.random.default_rng(0).normal(size=6).astype(np.float32)
ROUNDED = FULL.astype(np.float16).astype(np.float32)


def full(data=FULL):
    return Weight("weight", data)


def half(data=ROUNDED):
    return Weight("weight", data, Storage.FLOAT16)


def weights_of(found, name="conv"):
    layer = next(layer for layer in found.graph.layers if layer.name == name)
    return layer.weights[0]


def changed(data, index, value):
    copy = data.copy()
    copy[index] = value
    return copy


def test_rounded_weights_get_their_full_precision_back():
    found = full_precision_graph(graph(conv=half()), graph(conv=full()))

    assert found.reasons == ()
    assert (found.weights, found.numbers) == (1, 6)
    assert weights_of(found).storage is Storage.FLOAT32
    np.testing.assert_array_equal(weights_of(found).data, FULL)
    assert not np.array_equal(FULL, ROUNDED)


def test_full_weights_must_be_equal_to_the_last_bit():
    shipped = changed(FULL, 4, np.nextafter(FULL[4], np.float32(9)))

    (reason,) = full_precision_graph(graph(conv=full(shipped)), graph(conv=full())).reasons

    assert reason.code is Code.WEIGHTS_DIFFER
    assert "Convolution 'conv', weight: 1 of 6 stored numbers" in reason.text
    assert "the first at 4" in reason.text


def test_a_weight_that_does_not_correspond_stays_as_shipped():
    shipped = changed(ROUNDED, 1, 0.5)

    found = full_precision_graph(
        graph(conv=half(shipped), other=half()), graph(conv=full(), other=full())
    )

    assert [reason.code for reason in found.reasons] == [Code.WEIGHTS_DIFFER]
    np.testing.assert_array_equal(weights_of(found).data, shipped)
    np.testing.assert_array_equal(weights_of(found, "other").data, FULL)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_nan_or_infinite_weight_has_its_own_code(odd):
    found = full_precision_graph(graph(conv=half(changed(ROUNDED, 2, odd))), graph(conv=full()))

    assert [reason.code for reason in found.reasons] == [Code.NOT_FINITE]


def test_weights_made_for_the_other_channel_order_are_recognised():
    reversed_channels = ROUNDED.reshape(2, 3)[:, ::-1].ravel()

    (reason,) = full_precision_graph(
        graph(conv=half(reversed_channels)), graph(conv=full())
    ).reasons

    assert reason.code is Code.CHANNELS_REVERSED
    assert "reverse order" in reason.text


def test_a_layer_that_body_onnx_does_not_have_is_named():
    (reason,) = full_precision_graph(graph(other=half()), graph(conv=full())).reasons

    assert "'other', weight: 6 numbers, nothing in body.onnx" in reason.text


def test_another_size_is_named():
    (reason,) = full_precision_graph(graph(conv=half(ROUNDED[:3])), graph(conv=full())).reasons

    assert "3 numbers, 6 numbers in body.onnx" in reason.text


def test_many_differences_are_named_in_part_and_counted_whole():
    names = [f"conv{i}" for i in range(9)]
    shipped = graph(**{name: half(ROUNDED + 1) for name in names})

    reasons = full_precision_graph(shipped, graph(**{name: full() for name in names})).reasons

    assert len(reasons) == 6
    assert reasons[-1].text == "and 4 more weight blobs differ from body.onnx"
