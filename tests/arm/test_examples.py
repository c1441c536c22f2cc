"""The examples with ncnn's ARM code, on CPUs with and without float16 arithmetic."""

import dataclasses

import pytest
from emulated_arm import CPUS
from example_bundle import Place

from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=CPUS)
def place(request, arm, bench):
    return Place(bench, dataclasses.replace(arm, cpu=request.param).run)


def test_the_whole_network_finds_what_python_finds(place):
    place.assert_same(place.run("detect_ncnn"), place.found_by_python())


@pytest.mark.parametrize("outputs", Outputs)
def test_raw_heads_and_the_library_find_what_python_finds(place, outputs):
    bundle = place.with_outputs(outputs)
    place.assert_same(place.run("detect_ncnn_raw", bundle=bundle), place.found_from_heads(bundle))
