import ncnn_child
import numpy as np
from hypothesis import given, settings
from ncnn_graphs import closed_graph, graphs

from mbv3ssd_deploy.ncnn_graph.check import check_graph, find_problems
from mbv3ssd_deploy.ncnn_graph.edit import insert_splits
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import build_layer


def relu(name, source, top, slope=0.0):
    return build_layer("ReLU", name, (source,), (top,), {"slope": slope})


def lines(graph):
    return [(layer.type, layer.name, layer.inputs, layer.outputs) for layer in graph.layers]


def test_each_consumer_gets_its_own_copy():
    graph = insert_splits(
        closed_graph(
            relu("c", "x", "y"),
            relu("a", "y", "p"),
            build_layer("BinaryOp", "b", ("y", "p"), ("q",)),
        )
    )

    assert lines(graph)[1:] == [
        ("ReLU", "c", ("x",), ("y",)),
        ("Split", "splitncnn_0", ("y",), ("y_splitncnn_0", "y_splitncnn_1")),
        ("ReLU", "a", ("y_splitncnn_0",), ("p",)),
        ("BinaryOp", "b", ("y_splitncnn_1", "p"), ("q",)),
    ]
    check_graph(graph)


def test_names_that_are_taken_are_stepped_over():
    graph = insert_splits(
        closed_graph(
            relu("splitncnn_0", "x", "y_splitncnn_0"),
            relu("c", "y_splitncnn_0", "y"),
            relu("a", "y", "p"),
            relu("b", "y", "q"),
        )
    )

    assert ("Split", "splitncnn_1", ("y",), ("y_splitncnn_1", "y_splitncnn_2")) in lines(graph)
    check_graph(graph)


@given(graphs())
@settings(max_examples=20, deadline=None)
def test_a_graph_that_needs_none_comes_back_equal(graph):
    assert insert_splits(graph) == graph


def test_a_second_time_changes_nothing():
    once = insert_splits(closed_graph(relu("a", "x", "p"), relu("b", "x", "q")))

    assert insert_splits(once) == once


def test_ncnn_needs_the_split():
    # clip(x, 0, 1) and clip(x, -1, 0) of one blob: without a Split one of them is not what it says
    high = build_layer("Clip", "high", ("x",), ("p",), {"min": 0.0, "max": 1.0})
    low = build_layer("Clip", "low", ("x",), ("q",), {"min": -1.0, "max": 0.0})
    start = relu("start", "image", "x", slope=1.0)
    graph = closed_graph(start, high, low)
    image = np.float32([[-3.0, -0.5, 0.5, 3.0]])
    assert any("a Split is missing" in problem for problem in find_problems(graph))

    found = ncnn_child.run_graph(insert_splits(graph), {"image": image}, ["p", "q", "x"])

    np.testing.assert_array_equal(found["p"], image.clip(0, 1))
    np.testing.assert_array_equal(found["q"], image.clip(-1, 0))
    # the blob keeps its name and can be extracted
    np.testing.assert_array_equal(found["x"], image)


def test_an_empty_graph_stays_empty():
    assert insert_splits(NcnnGraph(())) == NcnnGraph(())
