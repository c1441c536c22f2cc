"""`inspect`: show what a file is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.flags import load_flags
from mbv3ssd_deploy.cli.output import Output, output_options

if TYPE_CHECKING:
    from mbv3ssd_deploy.checkpoint.load import LoadOptions
    from mbv3ssd_deploy.core.spec import DetectorSpec

TRAINED_LAYOUT = "torchvision"
"""The layout of the detectors that `train` makes."""


@click.command(name="inspect", short_help="Show what a checkpoint, body, .param or bundle is.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--write-spec",
    "spec_target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the spec as JSON, as a template for --spec.",
)
@load_flags
@output_options
def command(*, path: Path, spec_target: Path | None, options: LoadOptions, out: Output) -> None:
    """Show what FILE is: a checkpoint, an ONNX body, an ncnn .param or a bundle.

    For a checkpoint: the family and the evidence for it, classes, priors and preprocessing.
    For backbone weights: the detectors that can start from them. For any .param: every mistake
    in it, with exit code 1 if there is one.

    \b
        mbv3ssd-deploy inspect model.pth
        mbv3ssd-deploy inspect hand-edited.param
    """
    from mbv3ssd_deploy.bundle.bundle import MANIFEST

    if path.is_dir() or path.name == MANIFEST:
        spec = _inspect_bundle(path, out)
    elif path.suffix == ".onnx":
        spec = _inspect_body(path, out)
    elif path.suffix == ".param":
        spec = None
        if spec_target is not None:
            raise click.UsageError("a .param file has no spec to write")
        _inspect_param(path, out)
    else:
        spec = _inspect_checkpoint(path, options, spec_target, out)
    if spec is None and spec_target is not None:
        raise click.UsageError(f"{path} is not a detector: it has no spec to write")
    if spec is not None and spec_target is not None:
        _write_spec(spec, spec_target)
        out.note(f"wrote {spec_target}: edit it, then pass it to export with --spec")


def _write_spec(spec: DetectorSpec, target: Path) -> None:
    import json

    from mbv3ssd_deploy.core.spec import json_from_spec
    from mbv3ssd_deploy.io.files import write_file

    text = json.dumps(json_from_spec(spec), indent=1, ensure_ascii=False)
    write_file(target, (text + "\n").encode())


def _inspect_checkpoint(
    path: Path, options: LoadOptions, spec_target: Path | None, out: Output
) -> DetectorSpec | None:
    from mbv3ssd_deploy.checkpoint.load import drafted_spec, load_detector
    from mbv3ssd_deploy.cli.render import show_checkpoint, show_provenance, show_spec
    from mbv3ssd_deploy.errors import CheckpointError, SpecError, UnsafeCheckpointError
    from mbv3ssd_deploy.io.records import json_from_record

    try:
        loaded = load_detector(path, options)
    except UnsafeCheckpointError:
        raise
    except CheckpointError:
        if options.family is None and _inspect_backbone(path, out):
            return None
        raise
    except SpecError:
        if spec_target is not None:
            _write_spec(drafted_spec(path, options), spec_target)
            out.note(f"wrote {spec_target}: the spec of the family, which this file contradicts")
        raise
    show_checkpoint(loaded, out)
    show_spec(loaded.spec, out)
    show_provenance(loaded, out)
    plain: dict[str, Any] = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": loaded.checkpoint.sha256,
        "family": loaded.checkpoint.family,
        "evidence": list(loaded.checkpoint.evidence),
        "notices": list(loaded.notices),
        "provenance": dict(loaded.provenance),
        "detector": json_from_record(loaded.spec),
        "keys": json_from_record(loaded.report),
    }
    out.json(plain)
    out.next_step("export", path)
    return loaded.spec


def _inspect_backbone(path: Path, out: Output) -> bool:
    """Print which backbone weights are at `path`; return whether there are any."""
    from mbv3ssd_deploy.checkpoint.backbones.load import describe_backbone

    found = describe_backbone(path)
    if found is None:
        return False
    network = f"MobileNetV3-{found.network.capitalize()}"
    out.result(f"{path}: backbone weights, {network} ({found.family}: {found.title})")
    for line in found.evidence:
        out.result(f"  evidence: {line}")
    feeds = f"no detector: {found.why_not}"
    if found.width is not None:
        feeds = f"detectors of width {found.width:g} and layout {', '.join(found.feeds)}"
    out.result("not a detector: there is nothing to deploy")
    out.result(f"it can initialise {feeds}")
    for line in found.notices:
        out.note(f"notice: {line}")
    out.json({"kind": "backbone"} | dataclasses.asdict(found) | {"path": str(path)})
    if TRAINED_LAYOUT in found.feeds and found.width is not None:
        width = () if found.width == 1.0 else ("--width", f"{found.width:g}")
        words = ("--arch", found.network, *width, "--backbone", path)
        out.next_step("train", "--data", "voc:PHOTOS", *words)
    return True


def _inspect_body(path: Path, out: Output) -> DetectorSpec:
    from mbv3ssd_deploy.cli.render import show_spec
    from mbv3ssd_deploy.io.records import json_from_record
    from mbv3ssd_deploy.onnx_body.body import read_body
    from mbv3ssd_deploy.onnx_body.simplify import op_counts

    body = read_body(path)
    counts = op_counts(body)
    out.result(f"{path}: ONNX body, opset {body.opset}, batch {body.batch}")
    show_spec(body.spec, out)
    rows = [(name, str(count)) for name, count in counts.items()]
    out.table("ONNX nodes", ("op", "count"), rows)
    out.json(
        {
            "kind": "onnx",
            "path": str(path),
            "opset": body.opset,
            "batch": body.batch,
            "ops": dict(counts),
            "detector": json_from_record(body.spec),
        }
    )
    out.next_step("to-ncnn", path)
    return body.spec


def _inspect_param(path: Path, out: Output) -> None:
    from mbv3ssd_deploy.cli.render import show_graph
    from mbv3ssd_deploy.ncnn_graph.param_text import read_param
    from mbv3ssd_deploy.ncnn_graph.precision import masked_and_unmasked

    parsed = read_param(path)
    masked, unmasked = masked_and_unmasked(parsed.graph)
    show_graph(parsed.graph, out)
    for finding in parsed.findings:
        out.result(f"{path}:{finding.line}: {finding.message}")
    count = len(parsed.findings)
    out.result(f"{count or 'no'} finding{'' if count == 1 else 's'}")
    out.json(
        {
            "kind": "param",
            "path": str(path),
            "layers": len(parsed.graph.layers),
            "blobs": parsed.graph.blob_count,
            "fp16_guarded": list(masked),
            "fp16_unguarded": list(unmasked),
            "findings": [{"line": f.line, "message": f.message} for f in parsed.findings],
        }
    )
    if parsed.findings:
        raise click.exceptions.Exit(1)


def _inspect_bundle(path: Path, out: Output) -> DetectorSpec:
    from mbv3ssd_deploy.bundle.bundle import read_bundle
    from mbv3ssd_deploy.cli.render import show_bundle
    from mbv3ssd_deploy.io.records import json_from_record

    bundle = read_bundle(path)
    show_bundle(bundle, out)
    out.json({"kind": "bundle", "path": str(bundle.directory)} | json_from_record(bundle.manifest))
    return bundle.spec
