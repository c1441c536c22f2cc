"""The family that docs/adding.md adds, step by step, is added here as it stands there."""

import re
import types

import pytest
import torch
from checkpoint_files import INVENTORIES, inventory, saved, state_dict
from zoo import REPOSITORY

from mbv3ssd_deploy.checkpoint import load, recognise
from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.spec import ChannelOrder
from mbv3ssd_deploy.errors import CheckpointError

RENAMED = (
    (r"backbone\.features", "body.features"),
    (r"backbone\.extra", "pyramid"),
    (r"head\.classification_head\.module_list", "cls"),
    (r"head\.regression_head\.module_list", "box"),
)


def pocket_weights():
    weights = state_dict("torchvision_small")
    for pattern, name in RENAMED:
        weights = {re.sub(f"^{pattern}", name, key): tensor for key, tensor in weights.items()}
    return weights | {"classifier.0.weight": torch.zeros(3, 3)}


@pytest.fixture
def pocket(monkeypatch):
    """Steps 3 and 4 of the page: its code, and its line in the table."""
    page = (REPOSITORY / "docs" / "adding.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    module = types.ModuleType("pocket")
    exec(compile(code, "docs/adding.md", "exec"), vars(module))  # noqa: S102 -- our own page
    for user in (load, recognise):
        monkeypatch.setattr(user, "FAMILIES", (*FAMILIES, module.POCKET))
    return module.POCKET


def test_before_the_first_step_the_file_is_refused_as_the_page_says(tmp_path):
    with pytest.raises(CheckpointError, match="nearest family is torchvision") as info:
        load_detector(saved(tmp_path / "w.pth", pocket_weights()))

    assert "first unknown body.features.0.0.0.weight" in info.value.message
    assert "docs/adding.md" in info.value.hint


@torch.no_grad()
def test_after_the_last_step_it_loads_as_the_same_network(tmp_path, pocket):
    loaded = load_detector(saved(tmp_path / "w.pth", pocket_weights()))
    original = load_detector(saved(tmp_path / "o.pth", state_dict("torchvision_small")))

    assert loaded.checkpoint.family == pocket.name
    assert loaded.report.dropped == {
        "classifier.0.weight": "left from ImageNet; no detector runs it"
    }
    image = torch.rand(1, 3, 320, 320)
    for ours, theirs in zip(loaded.net(image), original.net(image), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded.spec.input.channel_order is ChannelOrder.BGR
    assert loaded.spec.priors.count == 3234


def test_a_tensor_that_is_missing_has_the_new_familys_name(tmp_path, pocket):
    weights = pocket_weights()
    del weights["box.3.0.1.bias"]

    with pytest.raises(CheckpointError, match=rf"{pocket.name} network: .*: box\.3\.0\.1\.bias"):
        load_detector(saved(tmp_path / "w.pth", weights))


@pytest.mark.parametrize("name", INVENTORIES)
def test_no_other_familys_file_is_taken_for_it(pocket, name):
    assert not pocket.signature.fits(inventory(name))
