"""The main job on photographs: a foreign checkpoint, verified on real images."""

import torch
import zoo

from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn, verify
from mbv3ssd_deploy.verification.report import Status, Verdict
from mbv3ssd_deploy.verification.rules import Check


@zoo.needs_zoo
@zoo.needs_bccd
def test_a_checkpoint_whose_priors_ncnn_expresses_only_in_part(tmp_path):
    weights = {
        key: torch.as_tensor(value) for key, value in zoo.state_dict("qfgaohao_small").items()
    }
    torch.save(weights, tmp_path / "mb3-small.pth")
    images = sorted((zoo.BCCD / "JPEGImages").glob("*.jpg"))[:2]

    export_checkpoint(tmp_path / "mb3-small.pth", tmp_path / "deploy")
    lower_to_ncnn(tmp_path / "deploy")
    report = verify(tmp_path / "deploy", images, device="cpu")

    assert (report.verdict, report.reasons) == (Verdict.PASS, ())
    assert (tmp_path / "deploy" / "verify.json").is_file()
    rows = {row.check: row for row in report.rows}
    for check in (Check.ONNX_CPU, Check.NCNN_EXACT):
        diff = rows[check].detections
        assert diff.matched_at(0.99) == diff.counted > 1000
        assert diff.flicker_lost + diff.flicker_new <= 2
    carriers = {level.carrier for level in rows[Check.NCNN_PRIORS].priors.levels}
    assert carriers == {"PriorBox", "MemoryData"}
    assert rows[Check.NCNN_RULES].status is Status.INFO
