"""The committed, reduced zoo: priors, inputs and detections are the originals', on any machine."""

import functools

import numpy as np
import pytest
import reduce_zoo
from reference_specs import ZOO_SPECS
from zoo import REDUCED, needs_zoo, reduced
from zoo_recipe import synthetic_image
from zoo_settings import rules, with_rules

from mbv3ssd_deploy.core.detections import detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.priors import build_priors

IMAGES = {"pre0_sample": (517, 701), "pre1_sample": (97, 131)}
KEPT = [
    (folder, setting["prefix"])
    for folder in ZOO_SPECS
    for setting in reduced(folder)[0]["detections"]
]


@functools.cache
def kept(folder):
    return reduced(folder)


@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_priors_are_the_originals(folder):
    priors = build_priors(ZOO_SPECS[folder].priors)

    assert np.array_equal(priors.astype(np.float32), kept(folder)[1]["priors_f32"])


@pytest.mark.parametrize("sample", IMAGES)
@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_inputs_are_the_originals(folder, sample):
    tensor = input_from_image(synthetic_image(*IMAGES[sample]), ZOO_SPECS[folder].input)
    recorded = kept(folder)[1][sample]

    assert tensor[:, 3::28, 2::20].shape == recorded.shape
    assert np.abs(tensor[:, 3::28, 2::20] - recorded).max() <= 1e-6


@pytest.mark.parametrize(("folder", "prefix"), KEPT)
def test_detections_are_the_originals(folder, prefix):
    about, recorded = kept(folder)
    setting = next(s for s in about["detections"] if s["prefix"] == prefix)
    spec = with_rules(ZOO_SPECS[folder], **rules(setting))
    priors = build_priors(spec.priors)[recorded["img_rows"]]

    found = detections_from_heads(recorded["img_loc"], recorded["img_logits"], spec, priors)

    found = scaled(found, about["image"]["width"], about["image"]["height"])
    # equal scores may have changed places: compare sorted by label, then left edge
    ours = np.lexsort((found.boxes[:, 0], found.labels))
    theirs = np.lexsort((recorded[f"{prefix}_boxes"][:, 0], recorded[f"{prefix}_labels"]))
    assert np.array_equal(found.labels[ours], recorded[f"{prefix}_labels"][theirs])
    assert np.abs(found.boxes[ours] - recorded[f"{prefix}_boxes"][theirs]).max() < 1e-3
    assert np.abs(found.scores[ours] - recorded[f"{prefix}_scores"][theirs]).max() < 1e-6
    # the stated order
    assert np.abs(found.scores - recorded[f"{prefix}_scores"]).max() < 1e-6


@needs_zoo
@pytest.mark.parametrize("folder", ["tongyu_small", "ujsyehao_released"])
def test_what_is_committed_is_what_the_fixtures_reduce_to(folder):
    again = reduce_zoo.reduced(folder)

    with np.load(REDUCED / f"{folder}.npz") as committed:
        assert set(committed.files) == set(again)
        for name in again:
            assert np.array_equal(committed[name], again[name]), name
