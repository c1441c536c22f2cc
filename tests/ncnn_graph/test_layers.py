import pytest
from ncnn_graphs import SAMPLES, sample_layer

from mbv3ssd_deploy.ncnn_graph.graph import Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS, build_layer, param_of
from mbv3ssd_deploy.ncnn_graph.schema import Same


@pytest.mark.parametrize("schema", LAYERS.values(), ids=lambda schema: schema.type)
def test_numbers_and_names_are_unique_and_within_what_ncnn_reads(schema):
    numbers = [field.id for field in schema.fields]

    assert len(set(numbers)) == len(numbers)
    assert len({field.name for field in schema.fields}) == len(numbers)
    assert set(numbers) <= set(range(32))
    assert {30, 31} <= set(numbers)


@pytest.mark.parametrize("schema", LAYERS.values(), ids=lambda schema: schema.type)
def test_every_default_fits_its_own_parameter(schema):
    full = schema.resolved({})

    assert [f.name for f in schema.fields if not f.fits(full[f.name])] == []


@pytest.mark.parametrize("schema", LAYERS.values(), ids=lambda schema: schema.type)
def test_weights_are_counted_by_integer_parameters_of_the_layer(schema):
    counted = {n for w in schema.weights for n in (*w.factors, *(when.name for when in w.when))}

    assert {schema.field(name).kind for name in counted} <= {"int"}


def test_a_default_may_be_another_parameters_value():
    layer = build_layer("Convolution", "c", ("a",), ("b",), {"kernel_w": 5, "pad_left": 2})

    assert LAYERS["Convolution"].field("kernel_h").default == Same("kernel_w")
    assert param_of(layer, "kernel_h") == 5
    # pad_bottom follows pad_top, which follows pad_left
    assert param_of(layer, "pad_bottom") == 2


def test_parameters_that_ncnn_would_take_by_itself_are_dropped():
    params = {"kernel_w": 3, "kernel_h": 3, "stride_w": 1, "pad_left": 1, "pad_top": 0}
    layer = build_layer("Convolution", "c", ("a",), ("b",), params)

    assert dict(layer.params) == {"kernel_w": 3, "pad_left": 1, "pad_top": 0}


def test_floats_are_rounded_to_32_bits_so_that_reading_back_changes_nothing():
    layer = build_layer("HardSwish", "h", ("a",), ("b",), {"alpha": 1 / 6})

    assert layer.params["alpha"] == pytest.approx(1 / 6, abs=1e-8)
    assert layer.params["alpha"] != 1 / 6


def test_an_integer_for_a_float_becomes_one():
    layer = build_layer("Clip", "c", ("a",), ("b",), {"min": 0, "max": 6})

    assert type(layer.params["max"]) is float


def test_the_automatic_step_is_a_default_and_dropped():
    layer = sample_layer("PriorBox", step_width=-233, step_height=-233.0)

    assert "step_width" not in layer.params
    assert param_of(layer, "step_width") == -233.0


@pytest.mark.parametrize(
    ("type_", "params", "error", "message"),
    [
        ("Conv", {}, ValueError, "no 'Conv'"),
        ("ReLU", {"alpha": 0.1}, ValueError, "no parameter alpha"),
        ("Permute", {"order_type": 3.0}, TypeError, "order_type holds int"),
        ("Permute", {"order_type": "3"}, TypeError, "order_type holds int"),
        ("Permute", {"order_type": 2**31}, ValueError, "32 bits"),
        ("Slice", {"slices": 3}, TypeError, "slices holds ints"),
        ("ReLU", {"slope": (0.1,)}, TypeError, "slope holds one float"),
        ("ReLU", {"slope": float("nan")}, ValueError, "not a finite float32"),
        ("ReLU", {"slope": 1e39}, ValueError, "not a finite float32"),
    ],
)
def test_misuse_is_named(type_, params, error, message):
    with pytest.raises(error, match=message):
        build_layer(type_, "x", ("a",), ("b",), params)


def test_a_convolution_has_a_flagged_weight_and_a_raw_bias():
    found = LAYERS["Convolution"].weights_of(SAMPLES["Convolution"])

    assert [(f.role, f.flagged, n) for f, n in found] == [("weight", True, 288), ("bias", False, 4)]


@pytest.mark.parametrize(
    ("term", "roles"),
    [
        (0, []),
        (1, [("weight_scales", 8), ("bottom_scale", 1)]),
        (2, [("weight_scales", 1), ("bottom_scale", 1)]),
        (102, [("weight_scales", 1), ("bottom_scale", 1), ("top_scale", 1)]),
    ],
)
def test_int8_terms_bring_their_scales(term, roles):
    params = SAMPLES["ConvolutionDepthWise"] | {"int8_scale_term": term}
    found = LAYERS["ConvolutionDepthWise"].weights_of(params)

    assert [(field.role, length) for field, length in found[1:]] == roles


@pytest.mark.parametrize(
    ("dims", "length"),
    [({"w": 5}, 5), ({"w": 5, "h": 2}, 10), ({"w": 2, "h": 3, "c": 4}, 24)],
)
def test_memory_data_leaves_out_the_dimensions_it_lacks(dims, length):
    ((field, found),) = LAYERS["MemoryData"].weights_of(dims)

    assert (field.flagged, found) == (False, length)


def test_equal_layers_are_equal_whatever_was_spelt_out():
    short = sample_layer("ReLU", slope=0.0)
    long = build_layer("ReLU", "layer", ("layer_in0",), ("layer_out0",))

    assert short == long
    assert Weight("bias", [1.0]) != Weight("weight", [1.0])
