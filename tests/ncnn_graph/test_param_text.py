from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ncnn_graphs import closed_graph, graphs, sample_layer
from zoo import SHARED

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.param_text import inspect_param, parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.precision import fp16_unsafe_layers

REFERENCE = SHARED / "data" / "reference" / "mobilenetv3_ssdlite_voc.param"
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def without_weights(graph):
    return NcnnGraph(tuple(replace(layer, weights=()) for layer in graph.layers))


@given(graphs())
@SLOW
def test_reading_what_was_written_gives_the_same_graph(graph):
    assert parse_param(render_param(graph)) == without_weights(graph)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_survive_bit_by_bit_in_at_most_15_characters(value):
    graph = closed_graph(sample_layer("Padding", value=value))
    text = render_param(graph)

    assert max(len(word.partition("=")[2]) for word in text.split()) <= 15
    assert parse_param(text) == without_weights(graph)


def test_the_text_of_an_ssd_tail():
    # Pinned because this is what other ncnn releases read: `.` and `e` in every float, lists with
    # their length, every parameter of the layers whose defaults surprise, and none of the others.
    graph = NcnnGraph(
        (
            build_layer("Input", "input", (), ("input",), {"w": 320, "h": 320, "c": 3}),
            build_layer("HardSwish", "hs", ("input",), ("x",), {"alpha": 1 / 6, "beta": 0.5}),
            sample_layer("PriorBox", "priors", ("x",), ("mbox_priorbox",), flip=0),
            build_layer("Softmax", "s", ("mbox_priorbox",), ("p",), {"axis": 1, "fixbug0": 1}),
        )
    )

    assert render_param(graph) == (
        "7767517\n"
        "4 4\n"
        "Input                    input                    0 1 input 0=320 1=320 2=3\n"
        "HardSwish                hs                       1 1 input x"
        " 0=1.66666672e-01 1=5.00000000e-01\n"
        "PriorBox                 priors                   1 1 x mbox_priorbox"
        " -23300=1,6.00000000e+01 -23301=1,1.05000000e+02 -23302=2,2.00000000e+00,3.00000000e+00"
        " 3=1.00000001e-01 4=1.00000001e-01 5=2.00000003e-01 6=2.00000003e-01 7=0 8=0 9=300 10=200"
        " 11=1.60000000e+01 12=-2.33000000e+02 13=5.00000000e-01 14=0 15=0\n"
        "Softmax                  s                        1 1 mbox_priorbox p 0=1 1=1\n"
    )


def test_empty_lists_are_left_out():
    text = render_param(closed_graph(sample_layer("PriorBox", max_sizes=())))

    assert "-23301" not in text


def test_the_feature_mask_and_shape_hints_are_written_where_they_are_set():
    layer = sample_layer("InnerProduct", featmask=2, shape_hints=(1, 5, 1, 1, 1))
    line = render_param(closed_graph(layer)).splitlines()[-1]

    assert line.endswith("-23330=5,1,5,1,1,1 31=2")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (NcnnLayer("Convolve", "c", (), ("a",)), "unknown layer type 'Convolve'"),
        (NcnnLayer("Input", "the input", (), ("a",)), "'the input' is empty, or holds white space"),
        (NcnnLayer("Input", "i", (), ("",)), "'' is empty"),
        (NcnnLayer("Input", "i", (), ("a\x00",)), "unprintable"),
        (NcnnLayer("Input", "é" * 128, (), ("a",)), "longer than 255 bytes"),
        (NcnnLayer("Input", "i", (), ("a",), {"width": 3}), "no parameter 'width'"),
        (NcnnLayer("Input", "i", (), ("a",), {"w": 3.0}), "w .* is the float 3.0 in an int slot"),
        (NcnnLayer("ReLU", "r", (), ("a",), {"slope": 1}), "slope .* is the integer 1 in a float"),
        (NcnnLayer("ReLU", "r", (), ("a",), {"slope": float("nan")}), "slope = nan is not finite"),
        (NcnnLayer("Slice", "s", (), ("a",), {"slices": 3}), "but ncnn reads ints"),
        (NcnnLayer("Input", "i", (), ("a",), {"w": (3,)}), "but ncnn reads int"),
    ],
)
def test_what_cannot_be_spelt_is_refused(layer, message):
    with pytest.raises(FormatError, match=message):
        render_param(NcnnGraph((layer,)))


HEAD = "7767517\n{} {}\nInput input 0 1 input\n"
BROKEN = {
    "empty": ("", 1, "is empty"),
    "magic": ("767517\n1 1\nInput a 0 1 a\n", 1, "begins with '767517'"),
    "counts": ("7767517\nInput a 0 1 a\n", 2, "layer and the blob count"),
    "no counts": ("7767517\n", 2, "layer and the blob count"),
    "too few layers": (HEAD.format(2, 1), 2, "2 layers are promised, 1 follow"),
    "too few blobs": (HEAD.format(1, 2), 2, "2 blobs are promised, the layers make 1"),
    "comment": ("7767517\n2 1\n# made by hand\nInput a 0 1 a\n", 3, "a comment"),
    "short line": ("7767517\n2 1\nInput a 0 1 a\nReLU r\n", 4, "type, name, input count"),
    "word for count": ("7767517\n2 1\nInput a 0 1 a\nReLU r a 1 b\n", 4, "type, name, input"),
    "promises too many": (
        HEAD.format(2, 1) + "ReLU r 2 1 input b 0=0.1\n",
        4,
        r"promises 2 \+ 1 blobs and names fewer; '0=0.1' would be one",
    ),
    "names too many": (HEAD.format(2, 2) + "ReLU r 1 1 input b c\n", 4, "'c' is not a parameter"),
    "unknown type": (HEAD.format(2, 2) + "Relu r 1 1 input b\n", 4, "unknown layer type 'Relu'"),
    "unknown parameter": (HEAD.format(2, 2) + "ReLU r 1 1 input b 1=2\n", 4, "no parameter 1$"),
    "parameter 32": (HEAD.format(2, 2) + "ReLU r 1 1 input b 32=2\n", 4, "32 is not within 0..31"),
    "parameter twice": (
        HEAD.format(2, 2) + "ReLU r 1 1 input b 0=0.1 0=0.2\n",
        4,
        "slope .* is given twice",
    ),
    "a word for a number": (HEAD.format(2, 2) + "ReLU r 1 1 input b 0=nan\n", 4, "'nan' is not"),
    "a text parameter": (HEAD.format(2, 2) + 'Reshape r 1 1 input b 6="0w,1"\n', 4, "parameter 6"),
    "too large": (HEAD.format(2, 2) + "Permute p 1 1 input b 0=4294967296\n", 4, "32 bits"),
    "infinite": (HEAD.format(2, 2) + "ReLU r 1 1 input b 0=1e39\n", 4, "not finite"),
    "long number": (HEAD.format(2, 2) + "ReLU r 1 1 input b 0=0.12345678901\n", 4, "misread"),
    "list length": (HEAD.format(2, 2) + "Slice s 1 1 input b -23300=2,1\n", 4, "promises 2"),
    "mixed list": (HEAD.format(2, 2) + "Slice s 1 1 input b -23300=2,1,2.0\n", 4, "int slot"),
    "int for float": (
        HEAD.format(2, 2) + "Clip c 1 1 input b 0=0 1=6.0\n",
        4,
        "min .parameter 0. is the integer 0 in a float slot",
    ),
    "float for int": (
        HEAD.format(2, 2) + "Permute p 1 1 input b 0=3.0\n",
        4,
        "order_type .* is the float 3.0 in an int slot",
    ),
    "int list for float list": (
        HEAD.format(2, 2) + "PriorBox p 1 1 input b -23300=1,60 9=300 10=300\n",
        4,
        "min_sizes .* is the list 60 in a float slot",
    ),
    "forward reference": (
        HEAD.format(3, 3) + "ReLU r 1 1 c b\nReLU q 1 1 input c\n",
        4,
        "'c' is used before ReLU 'q' makes it",
    ),
    "no such blob": (HEAD.format(2, 2) + "ReLU r 1 1 c b\n", 4, "no layer makes blob 'c'"),
    "blob made twice": (HEAD.format(2, 1) + "ReLU r 1 1 input input\n", 4, "'input' is made twice"),
    "no split": (
        HEAD.format(3, 3) + "ReLU r 1 1 input b\nReLU q 1 1 input c\n",
        5,
        "'input' is already used by ReLU 'r'; a Split is missing",
    ),
    "name twice": (
        HEAD.format(2, 2) + "ReLU input 1 1 input b\n",
        4,
        "duplicate name, of layers 0 and 1",
    ),
}


@pytest.mark.parametrize(("text", "line", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_its_line(text, line, message):
    with pytest.raises(FormatError, match=message) as caught:
        parse_param(text, source="net.param")

    assert caught.value.where == f"net.param:{line}"


def test_all_problems_of_a_file_are_named_at_once():
    text = HEAD.format(3, 3) + "Relu r 1 1 input b\nPermute p 1 1 b c 0=3.0\n"

    with pytest.raises(FormatError) as caught:
        parse_param(text, source="net.param")

    assert caught.value.where == "net.param:4"
    assert caught.value.message.startswith("2 problems:")
    assert "line 4: unknown layer type" in caught.value.message
    assert "line 5: order_type" in caught.value.message


def test_what_ncnn_allows_is_read():
    text = (
        "\n7767517\r\n2 2\r\n\nInput\tinput  0 1 input 1=4   0=3\r\n"
        "PriorBox p 1 1 input b 0=60., 1=1.05e2, 2=.5,3.0 9=300 10=200"
    )

    layer = parse_param(text).layers[1]

    assert layer.params["min_sizes"] == (60.0,)
    assert layer.params["aspect_ratios"] == (0.5, 3.0)


def test_a_foreign_file_is_shown_with_its_faults():
    text = HEAD.format(3, 3) + "Relu r 1 1 input b 0=0.1\nClip c 1 1 b c 0=0 1=6.0\n"

    parsed = inspect_param(text)

    assert [layer.type for layer in parsed.graph.layers] == ["Input", "Relu", "Clip"]
    assert parsed.graph.layers[2].params["min"] == 0
    assert [finding.line for finding in parsed.findings] == [4, 5]


# each ended once with an error of Python's own
DAMAGED = {
    "thousands of digits": "Input input 0 1 input 0=" + 5000 * "9",
    "thousands of zeros": "Input input 0 1 input 0=" + 5000 * "0",
    "a count of many digits": f"Input input 0 {5000 * '9'} input",
    "a key of many digits": f"Input input 0 1 input {5000 * '9'}=1",
    "a list length of many digits": f"Slice s 0 1 input -23300={5000 * '9'},1",
    "digits of another alphabet": "Input input 0 1 input 0=\N{ARABIC-INDIC DIGIT THREE}",
    "no input": "Convolution c 0 1 y 0=8 1=3 6=216",
    "no output": "Input input 0 0 0=4",
    "a float for an integer": "ConvolutionDepthWise d 1 1 input y 0=8 1=3 3=2.0 6=72 7=8",
    "a stride of 0": "ConvolutionDepthWise d 1 1 input y 0=8 1=3 3=0 6=72 7=8",
    "no groups": "ConvolutionDepthWise d 1 1 input y 0=8 1=3 3=2 6=72 7=0",
    "an integer for a list": "Slice s 1 1 input y 0=3",
    "a list for an integer": "Convolution c 1 1 input y 0=8,2 1=3",
    "a name of many bytes": f"ReLU {5000 * 'r'} 1 1 input y",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_line_is_a_finding_and_the_rest_is_shown(case):
    text = f"7767517\n2 2\nInput x 0 1 input 0=8 1=8 2=8\n{DAMAGED[case]}\n"

    parsed = inspect_param(text)

    assert 4 in [finding.line for finding in parsed.findings]
    assert max(len(str(finding)) for finding in parsed.findings) < 500
    assert fp16_unsafe_layers(parsed.graph) == frozenset()
    with pytest.raises(FormatError):
        parse_param(text)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the published reference model is not here")
def test_the_published_model_carries_two_integers_in_float_slots():
    parsed = inspect_param(REFERENCE.read_text(), source=REFERENCE.name)

    assert len(parsed.graph.layers) == 408
    assert parsed.graph.blob_count == 470
    # ncnn issue 1723: its first-level priors may be NaN
    assert [(f.line, f.message[:26]) for f in parsed.findings] == [
        (348, "step_width (parameter 11) "),
        (348, "step_height (parameter 12)"),
    ]
    with pytest.raises(FormatError, match="integer -233 in a float slot") as caught:
        parse_param(REFERENCE.read_text(), source=REFERENCE.name)
    assert caught.value.where == f"{REFERENCE.name}:348"
