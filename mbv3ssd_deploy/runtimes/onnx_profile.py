"""What ONNX Runtime makes of a model: the nodes that really run, and the time of each."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnxruntime

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import RuntimeFailedError
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel

_NODE_TIME = "_kernel_time"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def profile_nodes(
    model: Path, image: F32, rounds: int, threads: int = 1, device: str = "cpu"
) -> dict[tuple[str, str], list[float]]:
    """Return the wall seconds of every node that runs, by its name and its operator's.

    These are the nodes after ONNX Runtime's own optimisations: fused ones, and the conversions
    between layouts (ReorderInput, ReorderOutput) that it had to put in.

    Args:
        model: an ONNX file with one input (1, 3, H, W).
        image: (3, H, W) float32.
        rounds: how often it runs; each node has as many entries.
        threads: for one operator.
        device: "cpu" or "cuda".

    Raises:
        RuntimeFailedError: ONNX Runtime refuses the model.
        RuntimeUnavailableError: it cannot run on the device.
    """
    OnnxModel(model, device, threads=threads)  # raises what there is to raise
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch, "profile"))
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(model), options, providers=[_PROVIDERS[device]])
        name = session.get_inputs()[0].name
        for _ in range(rounds):
            session.run(None, {name: image[None]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times = _node_times(events)
    if not times:
        raise RuntimeFailedError("ONNX Runtime's profile names no node", where=str(model))
    return times


def _node_times(events: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_NODE_TIME):
            key = (event["name"].removesuffix(_NODE_TIME), event["args"]["op_name"])
            times[key].append(event["dur"] * 1e-6)
    return times
