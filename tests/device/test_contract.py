import dataclasses
import re
import struct
import zlib

import pytest
from reference_specs import ZOO_SPECS, qfgaohao_spec

from mbv3ssd_deploy.core.spec import PriorLevel
from mbv3ssd_deploy.device.contract import render_contract, render_contract_header
from mbv3ssd_deploy.errors import SpecError


def test_the_header_follows_the_format_page():
    contract = render_contract(qfgaohao_spec())

    magic, version, size, checksum = struct.unpack_from("<8s3I", contract)
    assert (magic, version) == (b"MBV3SSDC", 1)
    assert size == len(contract) - 20
    assert checksum == zlib.crc32(contract[20:])


def test_equal_specs_give_equal_bytes_and_others_differ():
    contracts = [render_contract(spec) for spec in ZOO_SPECS.values()]

    assert contracts == [render_contract(spec) for spec in ZOO_SPECS.values()]
    # qfgaohao's two nets differ in their arch alone, which a device does not need
    assert len(set(contracts)) == len(set(map(without_arch, ZOO_SPECS.values())))


def without_arch(spec):
    return repr(dataclasses.replace(spec, arch=qfgaohao_spec().arch))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("input", "mean", (1.0, 2.0, 3.5)),
        ("coder", "max_log_size", 4.0),
        ("coder", "min_log_size", -4.0),
        ("decode", "keep_per_class", 7),
        ("decode", "clip_before_nms", True),
        ("decode", "suppress_at_threshold", True),
        ("decode", "iou_epsilon", 0.25),
    ],
)
def test_every_field_counts(part, field, value):
    spec = qfgaohao_spec()
    changed = dataclasses.replace(getattr(spec, part), **{field: value})

    assert render_contract(dataclasses.replace(spec, **{part: changed})) != render_contract(spec)


def test_the_c_header_holds_the_same_bytes():
    spec = dataclasses.replace(qfgaohao_spec(), name="*/ evil \\ name")
    header = render_contract_header(spec)

    numbers = bytes(int(word, 16) for word in re.findall(r"0x([0-9A-F]{2}),", header))
    assert numbers == render_contract(spec)
    assert header.count("*/") == 1


def test_all_limits_that_are_exceeded_are_listed():
    spec = qfgaohao_spec()
    level = PriorLevel(5000, 5000, 1, 1, 10, None, ())
    spec = dataclasses.replace(
        spec,
        input=dataclasses.replace(spec.input, width=20000),
        priors=dataclasses.replace(spec.priors, levels=(level,)),
        decode=dataclasses.replace(spec.decode, keep_total=1 << 32),
    )

    with pytest.raises(SpecError, match="20000 x 300") as caught:
        render_contract(spec)

    assert "25000000 priors with 21 classes" in str(caught.value)
    assert "a top-k is above" in str(caught.value)
