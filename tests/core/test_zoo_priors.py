"""Priors against the numbers that the families' own code gave."""

import numpy as np
import pytest
from reference_specs import qfgaohao_priors, torchvision_priors
from zoo import needs_zoo, oracle

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_priors

SPECS = {
    "qfgaohao_large": qfgaohao_priors(),
    "qfgaohao_small": qfgaohao_priors(),
    "torchvision_coco": torchvision_priors(),
    "torchvision_fulltail": torchvision_priors(),
    "torchvision_small": torchvision_priors(),
}


@needs_zoo
@pytest.mark.parametrize("folder", SPECS)
def test_priors_are_the_originals(folder):
    recorded, priors = oracle(folder), build_priors(SPECS[folder])

    assert np.abs(priors - recorded["priors_f64"]).max() < 1e-12
    assert np.array_equal(priors.astype(np.float32), recorded["priors_f32"])


@needs_zoo
@pytest.mark.parametrize("folder", [name for name in SPECS if name.startswith("torchvision")])
def test_corners_in_pixels_are_torchvisions_anchors(folder):
    corners = corners_from_centre(build_priors(SPECS[folder])) * 320

    assert np.abs(corners - oracle(folder)["anchors_xyxy_px"]).max() < 1e-4
