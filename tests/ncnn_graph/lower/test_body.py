"""A whole model: what is refused as a whole, how things are called, what constants become."""

import builders
import numpy as np
import onnx
import pytest
from onnx_text import assert_lowers, fused, lowered, onnx_model, types

from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError
from mbv3ssd_deploy.ncnn_graph.edit import UniqueNames
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body, lower_model
from mbv3ssd_deploy.onnx_body.export import export_body


def test_an_unknown_operator_is_named_with_its_node():
    text = "g (float[1,5] x) => (float[1,5] y) { y = Erf(x) }"
    model = onnx_model(text)
    model.graph.node[0].name = "/head/erf"

    with pytest.raises(UnsupportedOpError) as caught:
        lowered(model)

    assert (caught.value.node, caught.value.op_type) == ("/head/erf", "Erf")


def test_all_unknown_operators_are_reported_together():
    text = (
        "g (float[1,5] x) => (float[1,5] y) "
        "{ a = Erf(x) b = Relu(a) c = Sin(b) d = Cos(c) y = Sigmoid(d) }"
    )

    with pytest.raises(UnsupportedOpError, match=r"(?s)Erf.*also: Sin.*also: Cos") as caught:
        lowered(onnx_model(text))

    assert "Relu" not in str(caught.value)


def test_all_misused_operators_are_reported_together():
    text = (
        "g (float[1,5,6] x) => (float[5,1,6] y, float[1,5,6] z) {"
        "y = Transpose<perm=[1,0,2]>(x) a = Relu(y) z = ReduceMean<axes=[0]>(x) }"
    )

    with pytest.raises(UnsupportedOpError, match=r"(?s)Transpose.*also: ReduceMean"):
        lowered(onnx_model(text))


def test_post_processing_is_called_so_and_says_what_to_do():
    text = "g (float[1,9] x) => (float[1,3] y, int64[1,3] i) { e = Exp(x) y, i = TopK(e, k) }"

    with pytest.raises(UnsupportedOpError, match="still holds the post-processing") as caught:
        lowered(onnx_model(text, {"k": np.array([3])}))

    assert "mbv3ssd-deploy export" in caught.value.hint
    assert "TopK" in caught.value.message


def test_an_operator_of_a_foreign_domain_is_unknown():
    model = onnx_model("g (float[1,5] x) => (float[1,5] y) { y = Relu(x) }")
    model.graph.node[0].domain = "custom"
    model.opset_import.append(onnx.helper.make_opsetid("custom", 1))

    with pytest.raises(UnsupportedOpError, match="custom::Relu"):
        lowered(model)


def test_a_batch_is_refused_with_the_flag_to_use():
    model = onnx_model("g (float[2,3,8,8] x) => (float[2,3,8,8] y) { y = Relu(x) }")

    with pytest.raises(SpecError, match="batch of 2") as caught:
        lowered(model)

    assert "--batch 1" in caught.value.hint


@pytest.mark.parametrize("size", ["n", "1,3,h,w"])
def test_an_open_shape_is_refused(size):
    sizes = "n,3,8,8" if size == "n" else size
    model = onnx_model(f"g (float[{sizes}] x) => (float[a,b,c,d] y) {{ y = Relu(x) }}")

    with pytest.raises(SpecError, match="shape is open"):
        lowered(model)


def test_two_inputs_are_refused():
    model = onnx_model("g (float[1,5] x, float[1,5] z) => (float[1,5] y) { y = Add(x, z) }")

    with pytest.raises(SpecError, match="x, z"):
        lowered(model)


def test_a_missing_output_is_named():
    model = onnx_model("g (float[1,5] x) => (float[1,5] y) { y = Relu(x) }")

    with pytest.raises(SpecError, match="no output 'conf'; it has y"):
        lower_model(model, {"conf": "conf"})


@pytest.mark.parametrize(
    "nodes", ["r = Relu(x) y = Identity(r) z = Identity(r)", "y = Relu(x) z = Identity(y)"]
)
def test_one_tensor_under_two_names_is_refused(nodes):
    text = f"g (float[1,5] x) => (float[1,5] y, float[1,5] z) {{ {nodes} }}"

    with pytest.raises(SpecError, match="one and the same"):
        lowered(onnx_model(text))


def test_constants_are_computed_wherever_they_come_from():
    text = (
        "g (float[1,4,5,6] x) => (float[1,2,5,6] y) {"
        "k = Constant<value = float[2] {2.0, 3.0}>() wide = Unsqueeze(k, axes) "
        "v = Mul(w, wide) same = Identity(v) y = Conv(x, same) }"
    )
    model = onnx_model(text, {"w": (2, 4, 1, 1), "axes": np.array([1, 2, 3])})

    assert types(lowered(model)) == ["Convolution"]
    assert_lowers(model)


def test_names_are_safe_and_stay_apart():
    text = "g (float[1,5] x) => (float[1,5] y) { a = Relu(x) b = Sigmoid(a) y = Relu(b) }"
    model = onnx_model(text)
    for node, name in zip(model.graph.node, ("/a b/Relu", "a_b/Relu", "input"), strict=True):
        node.name = name
    graph = lowered(model)

    assert [layer.name for layer in graph.layers] == ["input", "a_b/Relu", "a_b/Relu_2", "input_2"]
    assert_lowers(model, graph)


def test_a_name_is_never_given_twice_nor_grows_without_end():
    names = UniqueNames(("taken",))
    given = [names.take(wish) for wish in ("taken", "x" * 999, "x" * 999, "", "é ü", "///")]

    assert len(set(given)) == len(given)
    assert max(map(len, given)) < 210
    assert given[0] == "taken_2"


@pytest.fixture(scope="module")
def body():
    spec = builders.tiny_spec()
    return export_body(builders.tiny_net(spec=spec), spec)


def test_tensors_are_mapped_to_their_blobs(body):
    graph, blob_of = lower_model(body.model, {"loc": "loc", "conf": "conf"})
    blobs = {blob for layer in graph.layers for blob in layer.outputs}
    computed = {t for node in body.model.graph.node for t in node.output}
    constants = {i.name for i in body.model.graph.initializer}

    assert set(blob_of.values()) <= blobs
    assert (blob_of["input"], blob_of["loc"], blob_of["conf"]) == (
        "input",
        "loc",
        "conf",
    )
    assert len(set(computed) - set(blob_of) - constants) < len(computed) / 4


def test_the_same_model_gives_the_same_graph(body):
    assert lower_body(body) == lower_body(body)


def test_the_model_is_not_changed():
    model = onnx_model("g (float[1,5] x) => (float[1,5] y) { y = Relu(x) }")
    before = model.SerializeToString(deterministic=True)

    fused(model)

    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model)


def test_a_blob_of_another_shape_than_its_tensor_is_refused():
    text = "g (float[1,5,6] x) => (float[1,5,7] y, float[1,5,6] z) { y = Relu(x) z = Sigmoid(x) }"

    with pytest.raises(UnsupportedOpError, match=r"'y' \[5, 6\], and ONNX \[5, 7\]") as caught:
        lowered(onnx_model(text))

    assert (caught.value.node, caught.value.op_type) == ("Relu_y", "Relu")


HUGE = {
    "filled": ("c = ConstantOfShape(size)", {"size": np.array([2, 2**30])}),
    "stretched": ("c = Expand(w, size)", {"w": (1, 5), "size": np.array([2**28, 5])}),
    "repeated": ("c = Tile(w, size)", {"w": (1, 5), "size": np.array([2**28, 1])}),
    "multiplied": ("c = Mul(w, v)", {"w": (2**13, 1), "v": (1, 2**13)}),
    "of a computed size": (
        "s = Concat<axis=0>(size, size) c = ConstantOfShape(s)",
        {"size": np.array([2**16])},
    ),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_huge_constant_is_refused_before_it_is_computed(case):
    nodes, weights = HUGE[case]
    text = f"g (float[1,5] x) => (float[1,5] y) {{ {nodes} y = Add(x, c) }}"

    with pytest.raises(UnsupportedOpError, match=r"constant 'c' .* MiB"):
        lowered(onnx_model(text, weights))


def test_a_constant_with_a_graph_inside_is_not_run():
    branch = "{{ => (float[1,5] {0}) {{ {0} = Identity(w) }} }}"
    then, other = (branch.format(name)[1:-1] for name in ("t", "e"))
    text = (
        "g (float[1,5] x) => (float[1,5] y) {"
        f"c = If <then_branch = t_{then}, else_branch = e_{other}> (yes) y = Add(x, c) }}"
    )

    with pytest.raises(UnsupportedOpError, match="If node"):
        lowered(onnx_model(text, {"w": (1, 5), "yes": np.array([True])[0]}))
