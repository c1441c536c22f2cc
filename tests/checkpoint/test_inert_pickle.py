"""Whatever a pickle is written to do when it is loaded, it is not done."""

import copyreg
import io
import pickle
import re
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from payloads import CALLS, EXTENSIONS, checkpoint, in_a_checkpoint, short, text

from mbv3ssd_deploy.checkpoint.inert_pickle import Global, Inert, InertUnpickler
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

TRAP = """
import pathlib

mark = pathlib.Path({marker!r}).touch
if {at_import}:
    mark()


class New:
    def __new__(cls, *arguments, **keywords):
        mark()
        return object.__new__(cls)


class Init:
    def __init__(self, *arguments):
        mark()


class SetState:
    def __setstate__(self, state):
        mark()


class SetItem(dict):
    def __setitem__(self, key, value):
        mark()


class Append:
    def append(self, item):
        mark()

    extend = append


class Hash:
    def __hash__(self):
        mark()
        return 1
"""


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it ran"


@pytest.fixture
def trap(tmp_path, monkeypatch, marker):
    """Make modules `trap`, whose classes leave a mark, and `sprung`, whose import does."""
    for name in ("trap", "sprung"):
        text = TRAP.format(marker=str(marker), at_import=name == "sprung")
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("trap", "sprung"):
        sys.modules.pop(name, None)


class Victim(pickle.Unpickler):
    """The control of these tests: it does what the pickle says."""

    def persistent_load(self, _):
        return torch.zeros(6)._typed_storage()


def run(code):
    Victim(io.BytesIO(in_a_checkpoint(code))).load()


@pytest.mark.parametrize(("code", "names"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_calls_are_refused_by_name(tmp_path, marker, code, names, legacy):
    code = code.replace(b"%b", text(f"touch '{marker}'"))

    with pytest.raises(UnsafeCheckpointError, match=f"would run {re.escape(names)};") as info:
        read_checkpoint(checkpoint(tmp_path, code, legacy=legacy))

    assert not marker.exists()
    assert info.value.exit_code == 5
    run(code)
    assert marker.exists()


@pytest.mark.parametrize("number", EXTENSIONS)
def test_extension_opcodes_are_refused_though_the_registry_knows_them(tmp_path, marker, number):
    code = EXTENSIONS[number] + text(f"touch '{marker}'") + b"\x85R"
    path = checkpoint(tmp_path, code)
    copyreg.add_extension("os", "system", number)
    try:
        with pytest.raises(UnsafeCheckpointError, match=f"extension {number} of copyreg"):
            read_checkpoint(path)
        assert not marker.exists()
        run(code)
        assert marker.exists()
    finally:
        copyreg.remove_extension("os", "system", number)


OBJECTS = {
    "an import": b"csprung\nNew\n",
    "an import by STACK_GLOBAL": short("sprung") + short("New") + b"\x93",
    "NEWOBJ": b"ctrap\nNew\n)\x81",
    "NEWOBJ_EX": b"ctrap\nNew\n)}\x92",
    "BUILD": b"ctrap\nSetState\n)\x81}b",
    "SETITEM": b"ctrap\nSetItem\n)\x81K\x01K\x02s",
    "SETITEMS": b"ctrap\nSetItem\n)\x81(K\x01K\x02u",
    "APPEND": b"ctrap\nAppend\n)\x81K\x01a",
    "APPENDS": b"ctrap\nAppend\n)\x81(K\x01e",
    "a hash": b"}ctrap\nHash\n)\x81K\x01s",
}


@pytest.mark.usefixtures("trap")
@pytest.mark.parametrize("code", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_objects_become_inert_and_the_weights_beside_them_load(tmp_path, marker, code, legacy):
    contents = read_checkpoint(checkpoint(tmp_path, code, legacy=legacy))

    assert torch.equal(contents.tensors["a.weight"], torch.zeros(2, 3))
    assert not marker.exists()
    assert not {"trap", "sprung"} & set(sys.modules)
    run(code)
    assert marker.exists()


@pytest.mark.usefixtures("trap")
def test_a_call_of_an_unknown_class_is_refused_by_its_name(tmp_path, marker):
    for opcode in (b"ctrap\nInit\n)R", b"(itrap\nInit\n", b"(ctrap\nInit\no"):
        path = checkpoint(tmp_path, opcode)
        with pytest.raises(UnsafeCheckpointError, match=r"would run trap\.Init;"):
            read_checkpoint(path)

    assert not marker.exists()


SENSELESS = {
    "a call of an object": b"ctrap\nNew\n)\x81)R",
    "a call with no tuple": b"cos\nsystem\nK\x01R",
    "a call of a number": b"K\x01)R",
    "an object of a number": b"K\x01)\x81",
    "a state for a class": b"ctrap\nNew\n}b",
    "a state for a listed call": b"ctorch._utils\n_rebuild_tensor_v2\n}b",
    "a state for a tuple": b")}b",
    "items for a class": b"ctrap\nNew\nK\x01K\x02s",
    "elements for a number": b"K\x01K\x02a",
    "a key without a value": b"}(K\x01u",
    "a nested key": b"})\x85K\x01s",
    "a large key": b"}(" + b"K\x01" * 17 + b"tK\x01s",
    "a key that has no hash": b"}]K\x01s",
    "a global of numbers": b"K\x01K\x02\x93",
    "a global of nothing": b"\x93",
    "an unknown memo": b"h\x99",
    "no mark": b"t",
    "out-of-band data": b"\x97",
    "a text as persistent id": b"Pstorage\n",
    "a number as persistent id": b"K\x01Q",
    "an empty persistent id": b")Q",
    "an unknown persistent id": b"(" + text("file") + text("w.pth") + b"tQ",
    "a persistent id without its parts": text("storage") + b"\x85Q",
    "a storage of a callable": b"("
    + text("storage")
    + b"cos\nsystem\n"
    + text("0")
    + text("cpu")
    + b"K\x01tQ",
    "more than there is": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "a frame longer than the file": b"\x95" + b"\xff" * 7 + b"\x7f",
    "more text than there is": b"\x8d" + b"\xff" * 7 + b"\x7f",
}


@pytest.mark.parametrize("code", SENSELESS.values(), ids=SENSELESS)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_makes_no_sense_is_a_damaged_file(tmp_path, code, legacy):
    path = checkpoint(tmp_path, b"ctrap\nNew\n0" + code, legacy=legacy)

    with pytest.raises(CheckpointError, match=r"damaged|persistent id|storage|uses|hash") as info:
        read_checkpoint(path)

    assert not isinstance(info.value, UnsafeCheckpointError)
    assert info.value.where == str(path)


def load(code):
    return InertUnpickler({}, lambda _: None).load(io.BytesIO(code))


KEYS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.text()
    | st.floats(allow_nan=False)
)
SCALARS = KEYS | st.integers(-(2**1000), 2**1000)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(VALUES, st.integers(0, 5))
def test_plain_values_are_what_pickle_makes_of_them(value, protocol):
    code = pickle.dumps(value, protocol)

    assert load(code) == value
    assert repr(load(code)) == repr(pickle.loads(code))  # noqa: S301 -- types and order too


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(), st.integers(3, 5))
def test_bytes_are_kept(value, protocol):
    assert load(pickle.dumps([value, bytearray(value)][: protocol - 3 or 1], protocol))[0] == value


def test_objects_keep_what_was_stored_in_them():
    found = load(b"\x80\x02cgone\nThing\n)\x81}X\x01\x00\x00\x00aK\x05sbK\x07a.")

    assert isinstance(found, Inert)
    assert found.class_name == "gone.Thing"
    assert found.attributes == {"a": 5}
    assert found.elements == [7]


def test_slots_come_beside_the_attributes():
    found = load(b"\x80\x02cgone\nThing\n)\x81}X\x01\x00\x00\x00aK\x05s}\x86b.")

    assert found.attributes == {"a": 5}


def test_a_list_may_hold_itself_and_one_object_stays_one():
    itself = []
    itself.append(itself)
    found = load(pickle.dumps(itself))
    shared = load(pickle.dumps([itself, itself]))

    assert found[0] is found
    assert shared[0] is shared[1]


def test_names_that_would_drive_a_terminal_are_defused():
    assert load(b"cgone\n\x1b[2J" + b"x" * 500 + b"\n.") == Global("gone.?[2J" + "x" * 91)


def test_a_pickle_nested_without_end_costs_no_stack():
    depth = 50_000

    found = load(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    objects = load(b"\x80\x02" + b"cgone\nThing\n)\x81" * depth + b"b" * (depth - 1) + b".")

    assert isinstance(found, list)
    assert isinstance(objects, Inert)
    with pytest.raises(CheckpointError, match="takes long to hash"):
        load(b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s.")


def test_keys_whose_hash_would_take_for_ever_are_refused():
    doubled = b")" + b"q\x01h\x01\x86" * 60

    with pytest.raises(CheckpointError, match="takes long to hash"):
        load(b"\x80\x02}" + doubled + b"K\x01s.")
