"""`bench`: latency, size and memory on every runtime, and the slowest layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbv3ssd_deploy.cli.flags import ImageSize
from mbv3ssd_deploy.cli.output import Output, named, output_options, size_format

if TYPE_CHECKING:
    from mbv3ssd_deploy.bench.report import BenchReport, RowReport
    from mbv3ssd_deploy.core.arrays import U8
    from mbv3ssd_deploy.runtimes.bench_job import LayersReport

_HEADER = (
    *("row", "prepare", "network", "post", "net + post", "p90", "ratio"),
    *("load", "files", "memory", "clock"),
)


@click.command(name="bench", short_help="Compare latency, size and memory of every runtime.")
@click.argument("targets", metavar="[TARGETS]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(["torch", "onnx", "ncnn"]),
    multiple=True,
    help="Only this runtime; may be repeated.  [default: all]",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    multiple=True,
    help="Only this precision; may be repeated.  [default: all of the runtime]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    multiple=True,
    help="Threads per operator; may be repeated.  [default: 1, and all cores]",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where PyTorch and ONNX Runtime run.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="A folder of images, or one image.  [default: a sample image]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N images only.")
@click.option(
    "--rounds",
    type=click.IntRange(5, 10_000),
    default=30,
    show_default=True,
    help="Counted rounds.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 1000),
    default=3,
    show_default=True,
    help="Rounds before them, not counted.",
)
@click.option("--layers", is_flag=True, help="Time single layers as well; show the slowest ten.")
@click.option(
    "--input-size",
    type=ImageSize(),
    metavar="N|HxW",
    help="Input size of a .param whose Input layer declares none.",
)
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the rows as a PNG.",
)
@output_options
def command(
    *,
    targets: tuple[Path, ...],
    images: Path | None,
    limit: int | None,
    input_size: tuple[int, int] | None,
    chart: Path | None,
    out: Output,
    **request_fields: object,
) -> None:
    """Measure TARGETS (default: deploy) side by side: bundles, .param files, a body.onnx.

    Every row is one runtime, precision and number of threads. Rows run in turn, round by round, in
    one process, and the ratio to the first row is computed within each round, so that
    other work on the machine matters little. Rows of one thread are measured in CPU time, which
    other processes do not affect; all others in wall time.

    Any .param is accepted. Without its .bin it gets random weights (up to 256 MB): speed depends
    on them only in DetectionOutput.

    \b
        mbv3ssd-deploy bench
        mbv3ssd-deploy bench deploy --images photos/ --threads 1 --layers
        mbv3ssd-deploy bench deploy hand-edited.param --runtime ncnn --input-size 300x300

    Exit code 1 when a row could not run.
    """
    from mbv3ssd_deploy.bench.measure import measure
    from mbv3ssd_deploy.bench.targets import BenchRequest
    from mbv3ssd_deploy.io.files import write_file
    from mbv3ssd_deploy.io.records import json_from_record

    if chart is not None and chart.suffix.lower() != ".png":
        raise click.UsageError("--chart draws a PNG: give it a name that ends in .png")
    paths = targets or (Path("deploy"),)
    request = BenchRequest(**request_fields)  # type: ignore[arg-type]
    with out.progress() as progress:
        report = measure(
            paths, _read(images, limit, out), request, input_size=input_size, progress=progress
        )
    _show(report, out)
    out.json(json_from_record(report))
    if chart is not None:
        write_file(chart, _render_chart(report))
        out.written([chart])
    if not request.layers and input_size is None:
        out.next_step("bench", *(p for one in paths for p in named(one)), "--layers")
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


def _read(images: Path | None, limit: int | None, out: Output) -> list[tuple[str, U8]]:
    """Return name and pixels of the images; empty without --images."""
    from mbv3ssd_deploy.data.images import list_images, read_images

    if images is None:
        return []
    found = read_images(list_images(images)[:limit])
    for path, reason in found.skipped:
        out.note(f"skipped {path}: {reason}")
    return [(str(image.path), image.pixels) for image in found.images]


def _show(report: BenchReport, out: Output) -> None:
    out.result(f"{report.date}, {report.machine}")
    out.result(", ".join(dict.fromkeys(row.engine for row in report.rows)))
    out.result(
        f"{report.rows[0].rounds} rounds on {_images(report.images)}; medians in milliseconds; "
        f"ratio of net + post to the first row, with the half-width of its 95 % interval"
    )
    for target in dict.fromkeys(row.target for row in report.rows):
        cells = [_cells(row) for row in report.rows if row.target == target]
        out.table(target, _HEADER, cells)
    for layers in report.layers:
        _show_layers(layers, out)
    for reason in report.left_out:
        out.note(f"left out: {reason}")
    for remark in report.remarks:
        out.result(f"- {remark}")
    for failure in report.failures:
        out.note(f"failed: {failure}")


def _images(names: tuple[str, ...]) -> str:
    if not names:
        return "seeded random numbers"
    return names[0] if len(names) == 1 else f"{len(names)} images in turn"


def _cells(row: RowReport) -> tuple[str, ...]:
    return (
        row.title,
        f"{row.prepare_ms:.2f}" if row.prepare_ms else "-",
        f"{row.network_ms:.2f}",
        "-" if row.detections is None else f"{row.finish_ms:.2f}",
        f"{row.both_ms:.2f}",
        f"{row.p90_ms:.2f}",
        f"{row.ratio.median:.3f} ±{row.ratio.uncertainty:.3f}",
        f"{row.load_ms:.0f}",
        size_format(row.file_bytes),
        f"{row.peak_mb:.0f} MB",
        row.clock,
    )


def _show_layers(report: LayersReport, out: Output) -> None:
    out.result("")
    title = f"{report.target}, {report.title}: the slowest {len(report.layers)} layers"
    rows = [(x.name, x.kind, f"{x.ms:.3f}", f"{x.share:.1%}") for x in report.layers]
    out.table(title, ("layer", "type", "ms", "share"), rows)
    kinds = ", ".join(f"{x.kind} {x.share:.1%} ({x.name})" for x in report.kinds)
    out.result(f"by type: {kinds}")
    out.result(
        f"measured by: {report.method}. All layers together {report.layers_ms:.2f} ms, "
        f"the network in one go {report.whole_ms:.2f} ms"
    )


def _render_chart(report: BenchReport) -> bytes:
    """Return a PNG with a stacked bar per row: its three stages."""
    from mbv3ssd_deploy.charts import render_bars

    names = [f"{row.target}: {row.title}" for row in report.rows]
    stages = (
        ("prepare", [row.prepare_ms for row in report.rows]),
        ("network", [row.network_ms for row in report.rows]),
        ("post-processing", [row.finish_ms for row in report.rows]),
    )
    return render_bars(f"Latency, {report.machine}", "ms (median)", names, stages)
