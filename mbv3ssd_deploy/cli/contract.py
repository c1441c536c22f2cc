"""`contract`: the contract of a bundle for the C++ library."""

from __future__ import annotations

from pathlib import Path

import click

from mbv3ssd_deploy.cli.output import Output, output_options


@click.command(name="contract", short_help="Write a bundle's contract for the C++ library.")
@click.argument("bundle", type=click.Path(path_type=Path), default=Path("deploy"))
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it.  [default: model.mbv3c in the bundle]",
)
@click.option("--header", is_flag=True, help="Write a C header with the bytes instead.")
@output_options
def command(*, bundle: Path, target: Path | None, header: bool, out: Output) -> None:
    """Write BUNDLE's priors, classes, thresholds and preprocessing for the C++ library.

    The library (cpp_postprocess/) reads the file with mbv3ssd_open. On a board without a file
    system, compile the header in and use mbv3ssd_open_memory.

    \b
        mbv3ssd-deploy contract deploy
        mbv3ssd-deploy contract deploy --header -o model_contract.h
    """
    from mbv3ssd_deploy.bundle.bundle import read_bundle
    from mbv3ssd_deploy.device.contract import (
        CONTRACT,
        HEADER,
        render_contract,
        render_contract_header,
    )
    from mbv3ssd_deploy.io.files import write_file

    opened = read_bundle(bundle)
    data = render_contract_header(opened.spec).encode() if header else render_contract(opened.spec)
    path = target or opened.directory / (HEADER if header else CONTRACT)
    write_file(path, data)
    spec = opened.spec
    out.json({"path": str(path), "bytes": len(data)})
    out.result(
        f"{spec.name}: input {spec.input.width} x {spec.input.height}, {spec.priors.count} priors, "
        f"{spec.num_classes} classes with the background"
    )
    out.written((path,))
    opening = "mbv3ssd_open_memory(mbv3ssd_contract, ...)" if header else "mbv3ssd_open(path, ...)"
    out.result(f"next: link cpp_postprocess, and {opening}; docs/cpp.md shows how")
