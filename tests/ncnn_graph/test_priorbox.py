import ncnn_child
import numpy as np
import pytest
from ncnn_graphs import SAMPLES

from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.priors import priors_from_priorbox

# 1e-6 normalised is the tolerance that the priors of a bundle are held to.
TOLERANCE = 5e-7
VARIANCES = (0.1, 0.1, 0.2, 0.2)


def random_case(seed):
    """Parameters, the feature map (cols, rows), and the size of the data blob if there is one."""
    random = np.random.default_rng(seed)
    width, height = (int(random.integers(96, 700)) for _ in range(2))
    cols, rows = (int(random.integers(1, 30)) for _ in range(2))
    sizes = int(random.integers(1, 4))
    smallest = np.sort(random.uniform(8, 300, sizes))
    has_data = bool(random.integers(2))
    params = {
        "min_sizes": tuple(smallest),
        "max_sizes": tuple(smallest * 1.7) if random.integers(2) else (),
        "aspect_ratios": tuple(random.uniform(0.2, 4, int(random.integers(0, 4)))),
        "variances_0": float(random.uniform(0.05, 0.3)),
        "variances_2": float(random.uniform(0.05, 0.3)),
        "flip": int(random.integers(2)),
        "clip": int(random.integers(2)),
        # with one blob, automatic sizes and no max sizes ncnn computes other priors
        "image_width": -233 if has_data else width,
        "image_height": -233 if has_data and random.integers(2) else height,
        "offset": float(random.choice([0.0, 0.5, 0.3])),
        "step_mmdetection": int(random.integers(2)),
        "center_mmdetection": int(random.integers(2)),
    }
    if random.integers(2):
        params |= {"step_width": width / cols, "step_height": float(random.uniform(4, 64))}
    return params, (cols, rows), (width, height) if has_data else None


CASES = [random_case(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def from_ncnn():
    """What the real ncnn computes for all cases, in one network."""
    layers, images = [], {}
    for index, (params, (cols, rows), data) in enumerate(CASES):
        images[f"map{index}"] = np.zeros((1, rows, cols), np.float32)
        blobs = [f"map{index}"]
        if data is not None:
            images[f"data{index}"] = np.zeros((1, data[1], data[0]), np.float32)
            blobs.append(f"data{index}")
        layers.append(build_layer("PriorBox", f"p{index}", tuple(blobs), (f"out{index}",), params))
    inputs = (build_layer("Input", name, (), (name,)) for name in images)
    outputs = [f"out{index}" for index in range(len(CASES))]
    return ncnn_child.run_graph(NcnnGraph((*inputs, *layers)), images, outputs)


def test_the_mirror_equals_ncnn(from_ncnn):
    for index, (params, (cols, rows), data) in enumerate(CASES):
        corners, repeated = from_ncnn[f"out{index}"]
        variances = [params.get(f"variances_{i}", default) for i, default in enumerate(VARIANCES)]

        found = priors_from_priorbox(params, cols, rows, data)

        case = f"seed {index}"
        np.testing.assert_allclose(found, corners, rtol=0, atol=TOLERANCE, err_msg=case)
        np.testing.assert_array_equal(np.resize(np.float32(variances), repeated.shape), repeated)


def test_the_cases_cover_every_switch():
    switches = {name: {case[0].get(name) for case in CASES} for name in ("flip", "clip")}

    assert switches == {"flip": {0, 1}, "clip": {0, 1}}
    assert {len(case[0]["min_sizes"]) for case in CASES} == {1, 2, 3}
    assert {bool(case[0]["max_sizes"]) for case in CASES} == {False, True}
    assert {case[2] is None for case in CASES} == {False, True}


def test_the_order_within_a_cell_is_small_large_wide_tall():
    params = SAMPLES["PriorBox"] | {"aspect_ratios": (4.0,), "image_height": 300}
    corners = priors_from_priorbox(params, 1, 1).reshape(-1, 4) * 300
    sizes = corners[:, 2:] - corners[:, :2]

    side = np.sqrt(60 * 105)
    np.testing.assert_allclose(sizes, [(60, 60), (side, side), (120, 30), (30, 120)], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_sizes": ()}, "0 min sizes"),
        ({"min_sizes": (1.0, 2.0)}, "2 min sizes have 1 max sizes"),
        ({"image_width": -233}, "-233 x 200 pixels"),
    ],
)
def test_what_ncnn_would_read_past_the_end_of_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        priors_from_priorbox(SAMPLES["PriorBox"] | changes, 2, 2)
