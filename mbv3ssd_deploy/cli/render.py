"""How results are printed: as tables and sentences, and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbv3ssd_deploy.cli.output import Output, named, size_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbv3ssd_deploy.bundle.bundle import Bundle
    from mbv3ssd_deploy.checkpoint.load import LoadedDetector
    from mbv3ssd_deploy.core.spec import DetectorSpec
    from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
    from mbv3ssd_deploy.onnx_body.simplify import SimplifyReport
    from mbv3ssd_deploy.pipeline import Exported, Lowered
    from mbv3ssd_deploy.verification.report import VerificationReport


def show_checkpoint(loaded: LoadedDetector, out: Output) -> None:
    """Print the family of a checkpoint and the evidence for it."""
    out.result(f"{loaded.checkpoint.path}: family {loaded.checkpoint.family}")
    for line in loaded.checkpoint.evidence:
        out.result(f"  evidence: {line}")
    for line in loaded.notices:
        out.note(f"notice: {line}")


def show_provenance(loaded: LoadedDetector, out: Output) -> None:
    """Print the architecture, and the source of each part of the spec."""
    arch = loaded.spec.arch
    taps = " and ".join(f"feature {tap.feature} ({tap.place})" for tap in arch.taps)
    out.result(
        f"architecture: layout {arch.layout}, heads on {taps}, then on extra levels of "
        f"{', '.join(map(str, arch.extras))} channels; container: {loaded.checkpoint.container}"
    )
    rows = [(field, source) for field, source in loaded.provenance.items()]
    out.table("Sources", ("part", "source"), rows)


def show_exported(exported: Exported, out: Output) -> None:
    """Print what `export` found and wrote."""
    from mbv3ssd_deploy.bundle.bundle import MANIFEST

    show_checkpoint(exported.loaded, out)
    show_spec(exported.bundle.spec, out, brief=True)
    _show_simplified(exported.simplified, out)
    out.written([exported.bundle.body_path, exported.bundle.directory / MANIFEST])


def _show_simplified(report: SimplifyReport, out: Output) -> None:
    names = sorted(set(report.ops_before) | set(report.ops_after))
    rows = [
        (name, str(report.ops_before.get(name, 0)), str(report.ops_after.get(name, 0)))
        for name in names
    ]
    rows.append(("all nodes", str(report.nodes_before), str(report.nodes_after)))
    rows.append(("size", size_format(report.bytes_before), size_format(report.bytes_after)))
    title = f"ONNX body, before and after {report.simplifier}"
    out.table(title, ("op", "before", "after"), rows)
    if report.applied:
        out.result(f"simplified outputs differ by at most {report.worst_difference:.1e}")
    else:
        out.note(f"the simplifier was not used, the body is as exported: {report.reason}")


def json_from_exported(exported: Exported) -> dict[str, Any]:
    """Return the result of `export` as JSON."""
    from mbv3ssd_deploy.io.records import json_from_record

    bundle = exported.bundle
    return {
        "bundle": str(bundle.directory),
        "family": exported.loaded.checkpoint.family,
        "evidence": list(exported.loaded.checkpoint.evidence),
        "notices": list(exported.loaded.notices),
        "detector": json_from_record(bundle.spec),
        "simplify": json_from_record(exported.simplified),
        "files": json_from_record(bundle.manifest)["files"],
    }


def show_lowered(lowered: Lowered, out: Output) -> None:
    """Print what `to-ncnn` wrote, and how the priors of each level are stored."""
    from mbv3ssd_deploy.bundle.bundle import MANIFEST

    record = lowered.bundle.manifest.ncnn
    if record is None:
        raise ValueError("the bundle has no ncnn files")
    if lowered.priors is not None:
        rows = [
            (str(p.level), str(found.count), p.layer, f"{p.worst_error:.1e}", p.reason)
            for p, found in zip(record.priors, lowered.priors.levels, strict=True)
        ]
        out.table(
            "Priors computed by ncnn, compared with the checkpoint's",
            ("level", "priors", "stored as", "worst error", "reason"),
            rows,
        )
        out.result(
            f"{lowered.priors.count} priors, worst error {lowered.priors.worst_error:.1e} "
            f"of the image ({lowered.priors.max_px:.1e} px)"
        )
        out.result(
            f"DetectionOutput: score above {record.score_threshold:g}, "
            f"IoU {record.iou_threshold:g}, {record.nms_top_k} candidates per class, "
            f"{record.keep_top_k} detections"
        )
    out.result(f"{record.layers} layers, weights as {record.storage}, outputs: {record.outputs}")
    bundle = lowered.bundle
    out.written([bundle.param_path, bundle.bin_path, bundle.directory / MANIFEST])


def json_from_lowered(lowered: Lowered) -> dict[str, Any]:
    """Return the result of `to-ncnn` as JSON."""
    from mbv3ssd_deploy.io.records import json_from_record

    plain = json_from_record(lowered.bundle.manifest)
    return {
        "bundle": str(lowered.bundle.directory),
        "ncnn": plain["ncnn"],
        "priors": None if lowered.priors is None else json_from_record(lowered.priors),
        "files": plain["files"],
    }


def show_verified(report: VerificationReport, bundle: Path, out: Output) -> None:
    """Print the table of checks, the reasons and the verdict of `verify`."""
    from mbv3ssd_deploy.verification.report import HEADER, Status
    from mbv3ssd_deploy.verification.rules import RULES, Check

    for left_out in report.skipped:
        out.note(f"skipped {left_out.image}: {left_out.reason}")
    cells = [dict(zip(HEADER, row, strict=True)) for row in report.table()[1:]]
    images = f"{len(report.images)} image{'' if len(report.images) == 1 else 's'}"
    out.result(
        f"{report.name}: {images}, {report.reference_boxes} reference boxes of {report.reference}"
    )
    shown = tuple(name for name in HEADER if name not in ("ran on", "note"))
    out.table("", shown, [tuple(row[name] for name in shown) for row in cells])
    for row, found in zip(cells, report.rows, strict=True):
        details = [text for text in (row["ran on"], row["note"]) if text]
        if found.check in RULES and found.status is not Status.SKIPPED:
            details.append(f"required: {RULES[found.check].sentence()}")
        out.result(f"  {row['check']}: {'; '.join(details)}")
    for reason in report.reasons:
        out.result(f"  {reason}")
    out.result(f"rule: {report.pass_rule}")
    out.result(report.headline)
    out.result(f"wrote {bundle / 'verify.json'}")
    states = {row.check: row.status for row in report.rows}
    if report.exit_code == 0:
        out.next_step("detect", bundle, "PHOTOS/")
    elif (states.get(Check.NCNN_SHIPPED_FP16), states.get(Check.NCNN_EXACT)) == (
        Status.FAIL,
        Status.PASS,
    ):
        out.result("the graph is right; this checkpoint needs more precision than float16 weights")
        out.next_step("to-ncnn", *named(bundle), "--fp32")


def show_spec(spec: DetectorSpec, out: Output, *, brief: bool = False) -> None:
    """Print the spec: classes, input, priors and decoding."""
    arch, image = spec.arch, spec.input
    out.result(
        f"{spec.name}: MobileNetV3-{arch.backbone.capitalize()}"
        f"{'' if arch.width_mult == 1 else f' x{arch.width_mult:g}'}, "
        f"{spec.num_classes} classes with the background, {spec.priors.count} priors"
    )
    out.result(
        f"input: {image.height} x {image.width} {image.channel_order.upper()}, "
        f"(pixel - {_numbers(image.mean)}) / {_numbers(image.std)}, resize rule {image.resize}"
    )
    if brief:
        return
    out.result(f"classes: {', '.join(spec.class_names)}")
    rows = [
        (
            str(index),
            f"{level.rows} x {level.cols}",
            str(level.boxes_per_cell),
            str(level.count),
            f"{level.min_size:g}",
            "" if level.max_size is None else f"{level.max_size:g}",
            _numbers(level.ratios),
            _numbers((level.step_x, level.step_y)),
        )
        for index, level in enumerate(spec.priors.levels)
    ]
    header = ("level", "map", "boxes/cell", "priors", "min", "max", "ratios", "step x, y")
    frame = f"{spec.priors.frame_width:g} x {spec.priors.frame_height:g}"
    title = (
        f"Priors in a frame of {frame}, clip {spec.priors.clip}, rounding {spec.priors.rounding}"
    )
    out.table(title, header, rows)
    _show_decode(spec, out)


def _show_decode(spec: DetectorSpec, out: Output) -> None:
    decode, coder = spec.decode, spec.coder
    out.result(
        f"decode: score above {decode.score_threshold:g}, IoU {decode.iou_threshold:g} "
        f"(epsilon {decode.iou_epsilon:g}), NMS scope {decode.nms_scope}, "
        f"candidates per class {_limit(decode.candidates_per_class)}, "
        f"kept per class {_limit(decode.keep_per_class)}, in total {_limit(decode.keep_total)}"
    )
    out.result(
        f"boxes: variances {_numbers(coder.variances)}, log size "
        f"{_bounds(coder.min_log_size, coder.max_log_size)}, "
        f"edges {decode.box_edges}, "
        f"{'clipped before NMS' if decode.clip_before_nms else 'not clipped'}, "
        f"order {decode.order}"
    )


def show_bundle(bundle: Bundle, out: Output) -> None:
    """Print what a bundle holds and what it was made from."""
    manifest = bundle.manifest
    if manifest.checkpoint is not None:
        found = manifest.checkpoint
        out.result(f"from {found.path} (family {found.family}, sha256 {found.sha256[:12]}..)")
        for line in found.evidence:
            out.result(f"  evidence: {line}")
    show_spec(bundle.spec, out)
    onnx, ncnn = manifest.onnx, manifest.ncnn
    out.result(f"onnx: opset {onnx.opset}, batch {onnx.batch}, {onnx.nodes} nodes, {onnx.exporter}")
    if ncnn is not None:
        stored = ", ".join(f"{level.level}: {level.layer}" for level in ncnn.priors)
        out.result(f"ncnn: {ncnn.layers} layers, {ncnn.storage}, outputs {ncnn.outputs}")
        if stored:
            out.result(f"  priors by level: {stored}")
    rows = [(name, size_format(f.bytes), f.sha256[:16]) for name, f in manifest.files.items()]
    out.table("Files", ("file", "size", "sha256"), rows)
    for line in manifest.commands:
        out.detail(f"made by: {line}")
    for name, version in manifest.versions.items():
        out.detail(f"  {name} {version}")


def show_graph(graph: NcnnGraph, out: Output) -> None:
    """Print how many layers of each type an ncnn graph has, and comments on its masks."""
    from collections import Counter

    counts = Counter(layer.type for layer in graph.layers)
    rows = [(name, str(count)) for name, count in counts.most_common()]
    rows.append(("all layers", str(len(graph.layers))))
    out.table("ncnn layers", ("type", "count"), rows)
    for comment in _comments_on_masks(graph):
        out.result(comment)


def _comments_on_masks(graph: NcnnGraph) -> Iterator[str]:
    from mbv3ssd_deploy.ncnn_graph.precision import masked_and_unmasked

    why = "where ncnn reads wrong columns on ARM (docs/formats/ncnn-param.md)"
    masked, unmasked = masked_and_unmasked(graph)
    if masked:
        yield f"31=1 keeps {len(masked)} stride-2 depthwise out of float16 arithmetic, {why}"
    if unmasked:
        yield (
            f"31=1 is missing on {len(unmasked)} stride-2 depthwise, which would keep them out of"
            f" float16 arithmetic, {why}, unless it has been fixed: {', '.join(unmasked)}"
        )


def _numbers(values: tuple[float, ...]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _bounds(least: float | None, most: float | None) -> str:
    above = "" if least is None else f"at least {least:.4g}"
    below = "" if most is None else f"at most {most:.4g}"
    return " and ".join(filter(None, (above, below))) or "unlimited"


def _limit(count: int | None) -> str:
    return "unlimited" if count is None else str(count)
