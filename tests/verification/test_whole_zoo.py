"""Every family whose original code was recorded goes from a checkpoint to a verified bundle."""

import pytest
from checkpoint_files import saved
from reference_specs import ZOO_SPECS
from renderer.scenes import write_scenes
from zoo import reduced
from zoo_recipe import state_dict

from mbv3ssd_deploy import convert
from mbv3ssd_deploy.verification.report import Status
from mbv3ssd_deploy.verification.rules import Check


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 2)
    return folder


FAST = ("qfgaohao_small", "torchvision_small", "ujsyehao_released")
FOLDERS = [
    folder if folder in FAST else pytest.param(folder, marks=pytest.mark.slow)
    for folder in ZOO_SPECS
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_whole_chain(folder, images, tmp_path):
    about, _ = reduced(folder)
    checkpoint = saved(tmp_path / "model.pth", state_dict(about["keys"], **about["weights"]))

    report = convert(checkpoint, images, tmp_path / "deploy")

    rows = {row.check: row for row in report.rows}
    for check in (Check.CONTRACT, Check.NCNN_WEIGHTS, Check.NCNN_PRIORS, Check.NCNN_EXACT):
        assert rows[check].status is Status.PASS, report.headline
    # weights that nobody trained amplify rounding: logits may be off by more than on photographs
    found = rows[Check.ONNX_CPU].detections
    assert found.counted >= 20
    assert found.lost == found.new == 0, report.headline
