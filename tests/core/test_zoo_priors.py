"""Priors against the numbers that the families' own code gave."""

import dataclasses

import numpy as np
import pytest
from reference_specs import ZOO_SPECS
from zoo import needs_zoo, oracle

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import PriorRounding


@needs_zoo
@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_priors_are_the_originals(folder):
    recorded, priors = oracle(folder), build_priors(ZOO_SPECS[folder].priors)

    assert np.abs(priors - recorded["priors_f64"]).max() < 1e-12
    assert np.array_equal(priors.astype(np.float32), recorded["priors_f32"])


@needs_zoo
@pytest.mark.parametrize("folder", [name for name in ZOO_SPECS if name.startswith("torchvision")])
def test_corners_in_pixels_are_torchvisions_anchors(folder):
    corners = corners_from_centre(build_priors(ZOO_SPECS[folder].priors)) * 320

    assert np.abs(corners - oracle(folder)["anchors_xyxy_px"]).max() < 1e-4


@needs_zoo
@pytest.mark.parametrize("folder", [name for name in ZOO_SPECS if name.startswith("ujsyehao")])
def test_first_and_last_pixels_are_mmdetections_anchors(folder):
    corners = corners_from_centre(build_priors(ZOO_SPECS[folder].priors)) * 300
    pixels = corners - (0, 0, 1, 1)

    assert np.abs(pixels - oracle(folder)["anchors_xyxy_px"]).max() < 1e-9
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-9


@needs_zoo
def test_the_recorded_priors_tell_rounding_apart():
    exact = dataclasses.replace(ZOO_SPECS["ujsyehao_released"].priors, rounding=PriorRounding.NONE)
    priors = corners_from_centre(build_priors(exact)) * 300 - (0, 0, 1, 1)

    assert np.abs(priors - oracle("ujsyehao_released")["anchors_xyxy_px"]).max() > 0.4
