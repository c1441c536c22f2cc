"""The networks that the peers are measured on: their weights are a recipe, nothing is downloaded.

The families' checkpoints are those of tests/data/zoo (seeded numbers on which the families' own
code was run); the native ones are built and filled here.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import Backbone, DetectorSpec
from mbv3ssd_deploy.nets.build import build_net
from mbv3ssd_deploy.onnx_body.body import OnnxBody
from mbv3ssd_deploy.onnx_body.export import export_body
from mbv3ssd_deploy.onnx_body.simplify import simplify_body
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parent.parent / "models" / "scenes-small"))
from builders import class_names, fill_weights
from renderer.scenes import render_scene
from zoo import reduced
from zoo_recipe import state_dict

CANDIDATES = 300
"""Scores above the threshold in a picture with a few objects; a random net lets 30 000 pass."""
THRESHOLD = 0.01


@dataclass(frozen=True, slots=True)
class Body:
    """One network as ONNX: as it was exported, and simplified.

    `original` is the simplified one with its heads as the family's own code writes them; None where
    they are written as ours.
    """

    name: str
    spec: DetectorSpec
    raw: OnnxBody
    simple: OnnxBody
    sample: F32
    original: onnx.ModelProto | None


def _family(folder: str) -> tuple[DetectorSpec, torch.nn.Module]:
    about, _ = reduced(folder)
    weights = state_dict(about["keys"], **about["weights"])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "weights.pth")
        torch.save(weights, path)
        loaded = load_detector(path)
    return loaded.spec, loaded.net


def _native(backbone: Backbone) -> tuple[DetectorSpec, torch.nn.Module]:
    spec = native_spec(backbone, class_names(21))
    net = build_net(spec)
    fill_weights(net)
    return spec, net


NETS: dict[str, Callable[[], tuple[DetectorSpec, torch.nn.Module]]] = {
    "ujsyehao_released": lambda: _family("ujsyehao_released"),
    "torchvision, 91 classes": lambda: _family("torchvision_coco"),
    "torchvision, 21 classes": lambda: _family("torchvision_fulltail"),
    "qfgaohao large": lambda: _family("qfgaohao_large"),
    "qfgaohao small": lambda: _family("qfgaohao_small"),
    "native large": lambda: _native(Backbone.LARGE),
    "native small": lambda: _native(Backbone.SMALL),
}


def build_body(name: str) -> Body:
    """Export one of `NETS`, its background lifted until about `CANDIDATES` scores pass."""
    spec, net = NETS[name]()
    net = net.eval()
    sample = input_from_image(render_scene(0).image, spec.input)
    lift_background(net, spec, sample)
    raw = export_body(net, spec)
    simple, _ = simplify_body(raw, sample[None], run=_run_onnx)
    original = with_heads_of_torchvision(simple.model) if spec.family == "torchvision" else None
    return Body(name, spec, raw, simple, sample, original)


def with_heads_of_torchvision(body: onnx.ModelProto) -> onnx.ModelProto:
    """Return `body` with its heads cut into boxes before their axes are turned, and not after.

    Before: `Transpose(x [1,A K,H,W], perm=[0,2,3,1])`, `Reshape([1,H W A,K])`
    After:  `Reshape(x, [1,A,K,H,W])`, `Transpose(perm=[0,3,4,1,2])`, `Reshape([1,H W A,K])`

    As in torchvision's `models/detection/ssd.py`, class SSDScoringHead.
    """
    model = onnx.ModelProto()
    model.CopyFrom(body)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Transpose":
            (rows,) = (n.output[0] for n in model.graph.node if node.output[0] in n.input)
            _, channels, height, width = shapes[node.input[0]]
            columns = shapes[rows][2]
            sizes = np.array([1, channels // columns, columns, height, width])
            cut = f"{node.name}/boxes"
            model.graph.initializer.append(onnx.numpy_helper.from_array(sizes, f"{cut}.shape"))
            source = [node.input[0], f"{cut}.shape"]
            nodes.append(onnx.helper.make_node("Reshape", source, [cut], name=cut))
            node.input[0] = cut
            node.attribute[0].ints[:] = [0, 3, 4, 1, 2]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


@torch.no_grad()
def lift_background(net: torch.nn.Module, spec: DetectorSpec, sample: F32) -> None:
    """Add to the background's biases what lets about `CANDIDATES` scores pass `THRESHOLD`."""
    conf = net(torch.from_numpy(sample[None].copy()))[1][0].numpy().astype(np.float64)
    low, high = -50.0, 50.0
    for _ in range(40):
        lead = (low + high) / 2
        low, high = (lead, high) if _passing(conf, lead) > CANDIDATES else (low, lead)
    for key, tensor in net.named_parameters():
        if "classification_head" in key and key.endswith("bias") and _is_last(key, net, spec):
            tensor[:: spec.num_classes] += (low + high) / 2


def _is_last(key: str, net: torch.nn.Module, spec: DetectorSpec) -> bool:
    """Whether `key` is the bias of a head's last convolution: one number a box and class."""
    module = net.get_submodule(key.rpartition(".")[0])
    return (
        isinstance(module, torch.nn.Conv2d)
        and module.kernel_size == (1, 1)
        and (module.out_channels % spec.num_classes == 0)
    )


def _passing(conf: np.ndarray, lead: float) -> int:
    lifted = conf + lead * (np.arange(conf.shape[1]) == 0)
    powers = np.exp(lifted - lifted.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    return int((shares[:, 1:] > THRESHOLD).sum())


def _run_onnx(model: bytes, inputs: F32) -> dict[str, F32]:
    return dict(OnnxModel(model).run(inputs).tensors)
