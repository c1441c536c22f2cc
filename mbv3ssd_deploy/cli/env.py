"""`env`: versions and devices, ready to paste into an issue."""

from __future__ import annotations

import click

from mbv3ssd_deploy.cli.output import Output, output_options


@click.command(name="env", short_help="Show versions and devices for an issue report.")
@output_options
def command(out: Output) -> None:
    """Print versions, runtimes and devices, ready to paste into an issue."""
    from mbv3ssd_deploy.io.records import json_from_record
    from mbv3ssd_deploy.runtimes.env import environment_report

    report = environment_report(devices=True)
    out.json(json_from_record(report))
    out.result(f"python        {report.python}")
    out.result(f"system        {report.system}, {report.cores} cores")
    for name, version in report.packages.items():
        out.result(f"{name:<13} {version}")
    rows = [
        (row.runtime, row.device, "yes" if row.usable else "no", row.detail)
        for row in report.devices
    ]
    out.table("Devices", ("runtime", "device", "usable", "detail"), rows)
