"""`contract` writes what the C++ library reads, and says what comes next."""

import json

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.device.contract import render_contract, render_contract_header


def test_the_contract_stands_in_the_bundle(place):
    told = place.run("contract")

    assert told.exit_code == 0
    assert "wrote deploy/model.mbv3c" in told.stdout
    assert "next: link cpp_postprocess" in told.stdout
    spec = read_bundle(place.folder / "deploy").spec
    assert (place.folder / "deploy" / "model.mbv3c").read_bytes() == render_contract(spec)


def test_a_header_goes_where_it_is_asked_for(place):
    told = place.run("contract", "deploy", "--header", "-o", "src/contract.h", "--json")

    assert told.exit_code == 0
    said = json.loads(told.stdout)
    header = (place.folder / said["path"]).read_text()
    assert said == {"path": "src/contract.h", "bytes": len(header)}
    assert header == render_contract_header(read_bundle(place.folder / "deploy").spec)


def test_a_folder_that_is_no_bundle_is_told(place):
    told = place.run("contract", "images")

    assert told.exit_code == 3
    assert "not a bundle" in told.stderr
