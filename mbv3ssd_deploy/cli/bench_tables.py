"""The output of `bench`: rows, slowest layers, remarks, a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbv3ssd_deploy.cli.output import Output, size_format

if TYPE_CHECKING:
    from mbv3ssd_deploy.bench.report import BenchReport, LayersReport, RowReport

_HEADER = (
    *("row", "prepare", "network", "post", "net + post", "p90", "ratio"),
    *("load", "files", "memory", "clock"),
)


def show_bench(report: BenchReport, out: Output) -> None:
    """Print the whole report."""
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


def render_chart(report: BenchReport) -> bytes:
    """Return a PNG with a stacked bar per row: its three stages."""
    from mbv3ssd_deploy.charts import render_bars

    names = [f"{row.target}: {row.title}" for row in report.rows]
    stages = (
        ("prepare", [row.prepare_ms for row in report.rows]),
        ("network", [row.network_ms for row in report.rows]),
        ("post-processing", [row.finish_ms for row in report.rows]),
    )
    return render_bars(f"Latency, {report.machine}", "ms (median)", names, stages)
