"""Making a bundle's ncnn network again, from its record and body.onnx."""

from __future__ import annotations

from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.graph import Storage


def request_from_record(record: NcnnRecord, storage: Storage) -> NcnnRequest:
    """Return what must have been asked for to get this record, with weights in `storage`."""
    return NcnnRequest(
        storage=storage,
        outputs=record.outputs,
        priors=record.priors_mode,
        score_threshold=record.score_threshold,
        iou_threshold=record.iou_threshold,
        nms_top_k=record.nms_top_k,
        keep_top_k=record.keep_top_k,
        guards=record.guards,
    )
