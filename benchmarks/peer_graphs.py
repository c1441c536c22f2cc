"""The ncnn files that `ncnn_peers.py` puts beside each other, all with the same numbers in them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from peer_nets import THRESHOLD, Body

from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest, build_ncnn
from mbv3ssd_deploy.ncnn_graph.edit import without_dead_layers
from mbv3ssd_deploy.ncnn_graph.fuse.activations import fold_scalar_operands, fuse_activations
from mbv3ssd_deploy.ncnn_graph.fuse.linear import fold_batch_norms
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import BinaryOpType, int_param, param_of
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body
from mbv3ssd_deploy.ncnn_graph.param_text import inspect_param, render_param
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.ncnn_graph.weight_bin import render_bin
from mbv3ssd_deploy.onnx_body.body import bytes_from_body

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT.parent / "shared" / "data" / "reference" / "mobilenetv3_ssdlite_voc.param"
LEVELS = 6


def write_ours(body: Body, outputs: Outputs, folder: Path) -> Path:
    """Write our graph of `body`, as `to-ncnn --fp32` does; return its .param."""
    request = NcnnRequest(
        storage=Storage.FLOAT32,
        outputs=outputs,
        score_threshold=THRESHOLD,  # these four as the reference has them
        iou_threshold=0.45,
        nms_top_k=300,
        keep_top_k=100,
    )
    model = build_ncnn(body.simple, request)
    target = folder / f"ours-{outputs.value}.param"
    target.write_bytes(model.param)
    target.with_suffix(".bin").write_bytes(model.weights)
    return target


def write_pnnx(body: Body, folder: Path, *, original: bool) -> Path:
    """Let pnnx convert the simplified body, weights as float32; return its .param.

    `original`: with its heads as the family's own code writes them, where that is not as ours does.
    """
    own = body.original if original else None
    work = folder / ("pnnx" if original else "pnnx-ours")
    work.mkdir()
    content = bytes_from_body(body.simple) if own is None else own.SerializeToString()
    (work / "body.onnx").write_bytes(content)
    size = f"[1,3,{body.spec.input.height},{body.spec.input.width}]"
    command = [str(_pnnx_program(folder)), "body.onnx", "fp16=0", f"inputshape={size}"]
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    return work / "body.ncnn.param"


def _pnnx_program(folder: Path) -> Path:
    """The program inside the installed package (extra `bench`), or one put beside our files."""
    found = importlib.util.find_spec("pnnx")
    if found is not None and found.origin is not None:
        return Path(found.origin).with_name("pnnx")
    target = folder.parent / "pnnx-package"
    if not target.exists():
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        words += ["--target", str(target), "-c", str(ROOT / "constraints.txt"), "pnnx"]
        subprocess.run(words, check=True)
    return target / "pnnx" / "pnnx"


def write_reference(body: Body, folder: Path) -> tuple[Path, Path]:
    """Write the hand-edited graph, and the same after ncnnoptimize's rewrites; both .params.

    Its weights are those of `body`: all graphs then compute the same scores, and DetectionOutput
    gets as many candidates in each. The .param is as it was found, but for two parameters that
    are integers in float slots and that other releases of ncnn read as NaN.
    """
    text = REFERENCE.read_text().replace("11=-233 12=-233", "11=-233.0 12=-233.0")
    graph = with_weights_of(inspect_param(text).graph, lower_body(body.simple))
    as_found, optimised = folder / "reference.param", folder / "ncnnoptimize.param"
    as_found.write_text(text)
    as_found.with_suffix(".bin").write_bytes(render_bin(graph))
    better = optimise(graph)
    optimised.write_text(render_param(better))
    optimised.with_suffix(".bin").write_bytes(render_bin(better))
    return as_found, optimised


def optimise(graph: NcnnGraph) -> NcnnGraph:
    """Apply what ncnnoptimize does to a graph of this kind, re-stated on our own graph.

    Scalars into BinaryOp, BatchNorm into the convolution before it, ReLU and Clip into the
    convolution before them. It knows no HardSwish, and merges no priors. (ncnnoptimize itself is in
    no package registry. It also drops two parameters of PriorBox, which moves priors; this does
    not.)
    """
    outputs = frozenset({"detection_out"})
    for rewrite in (fold_scalar_operands, fold_batch_norms, fuse_activations):
        graph = rewrite(graph, outputs)
    return without_dead_layers(graph, outputs)


def with_weights_of(reference: NcnnGraph, lowered: NcnnGraph) -> NcnnGraph:
    """Return `reference` with the weights of `lowered`, matched layer by layer.

    Both run the backbone in the same order. Of the heads the reference has, level by level, scores
    before boxes; ours come boxes first, then scores.

    Raises:
        ValueError: the convolutions do not match.
    """
    own = [layer for layer in lowered.layers if _is_convolution(layer)]
    body, boxes, scores = own[: -4 * LEVELS], own[-4 * LEVELS : -2 * LEVELS], own[-2 * LEVELS :]
    for level in range(LEVELS):
        pair = slice(2 * level, 2 * level + 2)
        body += [*scores[pair], *boxes[pair]]
    sources = iter(_in_reference_order(body, [x for x in reference.layers if _is_convolution(x)]))
    readers = {blob: layer for layer in reference.layers for blob in layer.inputs}
    return NcnnGraph(
        tuple(
            replace(layer, weights=next(sources).weights)
            if _is_convolution(layer)
            else _with_constant(layer, readers)
            for layer in reference.layers
        )
    )


def _in_reference_order(
    own: Sequence[NcnnLayer], theirs: Sequence[NcnnLayer]
) -> Iterable[NcnnLayer]:
    """Bring heads that the reference writes between the extras to their places.

    Raises:
        ValueError: a convolution has no counterpart.
    """
    left = list(own)
    for layer in theirs:
        found = next((x for x in left if _shape(x) == _shape(layer)), None)
        if found is None:
            raise ValueError(f"no convolution of ours is like {layer.type} {layer.name!r}")
        left.remove(found)
        yield found


def _is_convolution(layer: NcnnLayer) -> bool:
    return layer.type in {"Convolution", "ConvolutionDepthWise", "InnerProduct"}


def _shape(layer: NcnnLayer) -> tuple[object, ...]:
    names = ("num_output", "kernel_w", "stride_w", "weight_data_size", "bias_term")
    return (layer.type, *(param_of(layer, name) for name in names))


def _with_constant(layer: NcnnLayer, readers: dict[str, NcnnLayer]) -> NcnnLayer:
    """Fill in a constant: x + 3, / 6 and * (1/6) are all that they are for."""
    if layer.type != "MemoryData":
        return layer
    op = int_param(readers[layer.outputs[0]], "op_type")
    number = {BinaryOpType.ADD: 3.0, BinaryOpType.DIV: 6.0, BinaryOpType.MUL: 1 / 6}[op]
    return replace(layer, weights=(Weight("data", np.array([number], np.float32)),))
