"""Raw heads of every family against its own code, from what is committed, on any machine."""

import numpy as np
import pytest
import torch
from checkpoint_files import saved
from reference_specs import ZOO_SPECS
from zoo import reduced
from zoo_recipe import state_dict, synthetic_input

from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.priors import build_priors


@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_a_checkpoint_gives_the_originals_heads_priors_and_rules(tmp_path, folder):
    about, recorded = reduced(folder)
    weights = state_dict(about["keys"], **about["weights"])
    image = torch.from_numpy(synthetic_input(**about["synthetic_input"]))

    loaded = load_detector(saved(tmp_path / "w.pth", weights))
    with torch.no_grad():
        loc, conf = loaded.net(image)

    rows = recorded["syn_rows"]
    np.testing.assert_allclose(loc[0][rows], recorded["syn_loc"], atol=5e-4, rtol=1e-3)
    np.testing.assert_allclose(conf[0][rows], recorded["syn_logits"], atol=5e-4, rtol=1e-3)
    priors = build_priors(loaded.spec.priors).astype(np.float32)
    np.testing.assert_array_equal(priors, recorded["priors_f32"])
    expected = ZOO_SPECS[folder]
    assert loaded.spec.family == expected.family
    assert loaded.spec.decode == expected.decode
    assert loaded.spec.coder == expected.coder
    assert loaded.spec.input == expected.input
