"""What Python writes, C++ reads; what nobody wrote, it refuses with a sentence."""

import struct
import zlib

import numpy as np
import pytest
from cpp_library import LibraryError, Status
from reference_specs import ZOO_SPECS, qfgaohao_spec

from mbv3ssd_deploy.device.contract import render_contract

HEADER = struct.Struct("<8s3I")


def sealed(body, version=1):
    """A contract of that body, with a checksum that is right."""
    return HEADER.pack(b"MBV3SSDC", version, len(body), zlib.crc32(body)) + body


def body_of(contract):
    return contract[HEADER.size :]


@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_every_family_is_read(library, folder):
    spec = ZOO_SPECS[folder]

    detector = library.open(render_contract(spec))

    about = detector.about
    assert (about.input_width, about.input_height) == (spec.input.width, spec.input.height)
    assert (about.class_count, about.prior_count) == (spec.num_classes, spec.priors.count)
    assert about.level_count == len(spec.priors.levels)
    names = tuple(map(detector.class_name, range(spec.num_classes)))
    assert names == spec.class_names
    assert detector.class_name(spec.num_classes) is detector.class_name(-1) is None


def test_a_file_is_read(library, tmp_path):
    path = tmp_path / "model.mbv3c"
    path.write_bytes(render_contract(qfgaohao_spec()))

    assert library.open_file(path).about.class_count == 21


def test_a_missing_file_is_an_error(library, tmp_path):
    with pytest.raises(LibraryError, match="cannot be opened") as caught:
        library.open_file(tmp_path / "none")
    assert caught.value.status is Status.CANNOT_READ
    with pytest.raises(LibraryError, match="cannot be read") as caught:
        library.open_file(tmp_path)
    assert caught.value.status is Status.CANNOT_READ


def test_another_version_is_refused(library):
    with pytest.raises(LibraryError, match="has version 2, this library reads 1") as caught:
        library.open(sealed(body_of(render_contract(qfgaohao_spec())), version=2))
    assert caught.value.status is Status.OTHER_VERSION


def test_every_truncated_contract_is_refused(library):
    contract = render_contract(qfgaohao_spec(3))
    for length in range(len(contract)):
        with pytest.raises(LibraryError) as caught:
            library.open(contract[:length])
        assert caught.value.status is Status.BAD_CONTRACT
        if length >= HEADER.size:
            with pytest.raises(LibraryError) as caught:
                library.open(sealed(body_of(contract[:length])))
            assert caught.value.status is Status.BAD_CONTRACT


def test_every_flipped_byte_is_refused(library):
    contract = render_contract(qfgaohao_spec(3))
    for at in range(len(contract)):
        damaged = bytearray(contract)
        damaged[at] ^= 0x41
        with pytest.raises(LibraryError):
            library.open(bytes(damaged))


def test_trailing_bytes_are_refused(library):
    contract = render_contract(qfgaohao_spec(3))
    for longer in (contract + b"\0", sealed(body_of(contract) + b"\0")):
        with pytest.raises(LibraryError) as caught:
            library.open(longer)
        assert caught.value.status is Status.BAD_CONTRACT


def test_hostile_contracts_with_a_correct_checksum_are_refused_or_opened(library):
    body = body_of(render_contract(qfgaohao_spec(3)))
    random = np.random.default_rng(0)
    refused = [error for _ in range(2000) if (error := error_of_forged(library, random, body))]

    assert {error.status for error in refused} <= {Status.BAD_CONTRACT, Status.OUT_OF_MEMORY}
    assert all(str(error).count("contract") for error in refused)
    assert len(refused) > 200


def error_of_forged(library, random, body):
    """The error of a contract in which some words were forged, if there is one."""
    forged = bytearray(body)
    words = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\xf0\x7f", b"\1\0\0\0", b"\0\0\0\x40")
    for _ in range(random.integers(1, 4)):
        at = random.integers(0, len(forged) - 4)
        forged[at : at + 4] = words[random.integers(len(words))]
    try:
        library.open(sealed(bytes(forged)))
    except LibraryError as error:
        return error
    return None
