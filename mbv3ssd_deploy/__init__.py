"""mbv3ssd-deploy: from a MobileNetV3-SSD checkpoint to a verified ncnn model.

The front door. Names are loaded on first use, so that importing the package imports nothing heavy.
`docs/api.md` shows each of them at work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector, load_detector
    from mbv3ssd_deploy.checkpoint.options import LoadOptions
    from mbv3ssd_deploy.core.detections import Detections
    from mbv3ssd_deploy.core.spec import DetectorSpec
    from mbv3ssd_deploy.data.images import draw_detections, read_image
    from mbv3ssd_deploy.detect import Detector, open_detector
    from mbv3ssd_deploy.errors import DeployError
    from mbv3ssd_deploy.evaluate.run import evaluate_files
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
    from mbv3ssd_deploy.onnx_body.export import export_body
    from mbv3ssd_deploy.pipeline import convert, export_checkpoint, lower_to_ncnn, verify
    from mbv3ssd_deploy.train.config import TrainRequest
    from mbv3ssd_deploy.train.run import train_detector

__version__ = "0.1.0"

_HOME = {
    "DeployError": "mbv3ssd_deploy.errors",
    "Detections": "mbv3ssd_deploy.core.detections",
    "Detector": "mbv3ssd_deploy.detect",
    "DetectorSpec": "mbv3ssd_deploy.core.spec",
    "LoadOptions": "mbv3ssd_deploy.checkpoint.options",
    "LoadedDetector": "mbv3ssd_deploy.checkpoint.load",
    "NcnnRequest": "mbv3ssd_deploy.ncnn_graph.build",
    "TrainRequest": "mbv3ssd_deploy.train.config",
    "convert": "mbv3ssd_deploy.pipeline",
    "draw_detections": "mbv3ssd_deploy.data.images",
    "evaluate_files": "mbv3ssd_deploy.evaluate.run",
    "export_body": "mbv3ssd_deploy.onnx_body.export",
    "export_checkpoint": "mbv3ssd_deploy.pipeline",
    "load_detector": "mbv3ssd_deploy.checkpoint.load",
    "lower_to_ncnn": "mbv3ssd_deploy.pipeline",
    "open_detector": "mbv3ssd_deploy.detect",
    "read_image": "mbv3ssd_deploy.data.images",
    "train_detector": "mbv3ssd_deploy.train.run",
    "verify": "mbv3ssd_deploy.pipeline",
}

__all__ = [
    "DeployError",
    "Detections",
    "Detector",
    "DetectorSpec",
    "LoadOptions",
    "LoadedDetector",
    "NcnnRequest",
    "TrainRequest",
    "__version__",
    "convert",
    "draw_detections",
    "evaluate_files",
    "export_body",
    "export_checkpoint",
    "load_detector",
    "lower_to_ncnn",
    "open_detector",
    "read_image",
    "train_detector",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- any of the names above
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
