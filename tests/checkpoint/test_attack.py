"""Files that hang a reader, fill its memory or break its parser: each is refused in a sentence."""

import io
import json
import pickle
import random
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from builders import tiny_spec
from checkpoint_files import saved, state_dict
from forged_files import (
    StorageId,
    TensorOf,
    float_storage,
    module_of,
    pickled,
    wrap_pickle,
)
from payloads import text

from mbv3ssd_deploy.checkpoint.backbones.load import load_backbone
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.checkpoint.reader import read_checkpoint, read_saved
from mbv3ssd_deploy.core.spec import ClassifierSpec
from mbv3ssd_deploy.errors import DeployError
from mbv3ssd_deploy.nets.build import build_classifier

ATTACKS = Path(__file__).parent / "data" / "attack"
MOST_MEMORY = 500_000_000
SIX = bytes(24)
WEIGHT = TensorOf(float_storage(), 0, (2, 3), (3, 1))


def laughs(levels=60, container=b"]"):
    """A list in a list, each twice in the next: its text doubles at every level."""
    code = container + b"q\x000"
    for level in range(levels):
        code += b"](h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1]) + b"0"
    return code + b"h" + bytes([levels])


def entry(key, code):
    """A pickle of weights in which another entry is made by `code`."""
    weights = pickled({"a.weight": WEIGHT})[2:-1]
    return b"\x80\x04}" + text("state_dict") + weights + b"s" + text(key) + code + b"s."


def native(schema=b"K\x01", spec=b"}"):
    return (
        entry("format", text("mbv3ssd-deploy/native"))[:-1]
        + text("schema")
        + schema
        + b"s"
        + text("spec")
        + spec
        + b"s."
    )


def nested_modules(depth):
    thing = b"}"
    code = b"cgone\nNet\n)\x81}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
    for _ in range(depth):
        thing = code + text("_modules") + b"}(" + text("m") + thing + b"uub"
    return thing


PICKLES = {
    "a schema of laughs": native(schema=laughs()),
    "a spec of laughs": native(spec=b"}" + text("name") + laughs() + b"s"),
    "a spec of a tensor": native(spec=b"}" + text("name") + pickled(WEIGHT)[2:-1] + b"s"),
    "a spec that holds itself": native(spec=b"}q\x01" + text("name") + b"h\x01s"),
    "a spec of many classes": native(
        spec=b"}" + text("class_names") + b"](" + text("a") * 200_000 + b"es"
    ),
    "a schema of many digits": native(
        schema=b"\x8b" + (9000).to_bytes(4, "little") + b"\x7f" * 9000
    ),
    "an integer as text": entry("epoch", b"I" + b"9" * 5000 + b"\n"),
    "class names of laughs": entry("meta", b"}" + text("CLASSES") + laughs() + b"s"),
    "class names that steer a terminal": entry(
        "meta", b"}" + text("CLASSES") + b"](" + text("\x1b]0;title\x07") + text("b") + b"es"
    ),
    "keys that steer a terminal": b"\x80\x02}" + text("\x1b[31mred\nnext:") + b"K\x01s.",
    "a key of laughs": b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 60 + b"K\x01s.",
    "a text of 20 MB as a key": b"\x80\x02}X"
    + (20_000_000).to_bytes(4, "little")
    + b"x" * 20_000_000
    + b"K\x01s.",
    "lists nested without end": entry("x", b"]" * 90_000 + b"a" * 89_999),
    "wrappers around wrappers": b"\x80\x02"
    + (b"}" + text("model")) * 900
    + b"}"
    + b"s" * 900
    + b".",
    "modules nested without end": b"\x80\x02" + nested_modules(300) + b".",
    "numbers as keys that collide": entry(
        "x",
        b"}("
        + b"".join(
            b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"K\x01" for i in range(2000)
        )
        + b"u",
    ),
    "an object of laughs as a key": b"\x80\x04}cgone\nT\n)\x81" + laughs() + b"bK\x01s.",
    "a million sets": entry("x", b"(" + b"\x8f" * 900_000 + b"l"),
    "three million operations": entry("x", b"]" + b"0]" * 1_500_000),
    "an attribute in place of a method": b"\x80\x02ccollections\nOrderedDict\n)R}"
    + text("get")
    + b"K\x05sb"
    + text("w")
    + pickled(WEIGHT)[2:-1]
    + b"s.",
    "a tensor for a module": b"\x80\x02}" + text("model") + pickled(WEIGHT)[2:-1] + b"s.",
    "a tensor alone": pickled(WEIGHT),
    "a number alone": b"\x80\x02K\x05.",
    "a storage alone": pickled(StorageId(torch.FloatStorage, "0", "cpu", 6)),
    "half a surrogate": b"\x80\x04}\x8c\x03\xed\xa0\x80K\x01s.",
    "nothing on the stack": b"\x80\x02.",
    "an empty pickle": b"",
}


def refusals(path):
    """The error of each way to read a file, or None; any other exception fails the test."""
    for read in (read_checkpoint, read_saved):
        try:
            read(path)
        except DeployError as error:
            yield error
        else:
            yield None


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused(tmp_path, name, legacy):
    path = wrap_pickle(tmp_path / "w.pth", PICKLES[name], legacy=legacy, storages={"0": SIX})

    for error in filter(None, refusals(path)):
        assert error.exit_code == 3
        assert len(str(error)) < 2000
        assert str(error).replace("\n  hint: ", "").isprintable()


def zipped(path, entries, **options):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data, **options)
    return path


def bomb(path):
    """A small archive whose pickle unpacks to 600 megabytes."""
    zeros = io.BytesIO()
    with (
        zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(60):
            file.write(bytes(10_000_000))
    path.write_bytes(zeros.getvalue())


def overlapping(path):
    """Many storages in the same few bytes: the central directory points all of them there."""
    code = pickled(
        {f"w{i}": TensorOf(float_storage(str(i), 250_000), 0, (1,), (1,)) for i in range(200)}
    )
    wrap_pickle(path, code, storages={"0": bytes(1_000_000)})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("archive/data/0")
        for i in range(1, 200):
            info = zipfile.ZipInfo(f"archive/data/{i}")
            for name in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(info, name, getattr(first, name))
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive._didModify = True


def lying(path):
    """An entry that claims more bytes than the file has."""
    wrap_pickle(path, pickled({"a": TensorOf(float_storage("0", 2**33), 0, (2**33,), (1,))}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", SIX)
        info = archive.getinfo("archive/data/0")
        info.file_size = info.compress_size = 2**35


def twice(path):
    zipped(path, {"a/data.pkl": pickled({"a": 1}), "a/data.pkx": pickled({"a": 2})})
    path.write_bytes(path.read_bytes().replace(b"data.pkx", b"data.pkl"))


ARCHIVES = {
    "a bomb": bomb,
    "storages that overlap": overlapping,
    "an entry that lies": lying,
    "two entries of one name": twice,
    "many entries": lambda path: zipped(
        path, {"a/data.pkl": pickled({}), **{f"a/{i}": "" for i in range(70_000)}}
    ),
    "a compressed pickle": lambda path: zipped(
        path, {"a/data.pkl": pickled({"a": 1})}, compress_type=zipfile.ZIP_DEFLATED
    ),
    "16 GB of bytearray": lambda path: wrap_pickle(
        path, entry("x", b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x04\x85R")
    ),
}


def test_an_unknown_dtype_of_safetensors_cannot_drive_the_terminal(tmp_path):
    dtype = "\x1b[31mX\nnext: rm"
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))

    for error in refusals(path):
        assert "unknown variant" in error.message
        assert error.message.isprintable()


def test_the_first_weights_without_values_are_refused_in_a_sentence(tmp_path):
    weights = state_dict("tongyu_small")
    weights["base_net.0.weight"] = torch.empty_like(weights["base_net.0.weight"], device="meta")

    with pytest.raises(DeployError):
        load_detector(saved(tmp_path / "w.pth", weights))


def test_a_classifier_whose_weights_have_no_values_is_refused_by_their_names(tmp_path):
    spec = tiny_spec()
    net = build_classifier(spec.arch, 2)
    write_native(tmp_path / "w.pth", net, ClassifierSpec("tiny", spec.arch, spec.input, ("a", "b")))
    entries = torch.load(tmp_path / "w.pth", weights_only=True)
    key = next(iter(entries["state_dict"]))
    entries["state_dict"][key] = torch.empty_like(entries["state_dict"][key], device="meta")

    with pytest.raises(DeployError, match=f"{re.escape(key)} has a shape but no values"):
        load_backbone(saved(tmp_path / "meta.pth", entries), spec)


INSPECT = """
import json, sys
from click.testing import CliRunner
from mbv3ssd_deploy.cli.main import cli
found = {}
for path in sys.argv[1:]:
    result = CliRunner().invoke(cli, ["inspect", path])
    found[path] = (result.exit_code, result.output)
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0])  # of this program alone, in kB
print(json.dumps({"files": found, "peak": peak}))
"""


def test_inspect_refuses_every_file_of_an_attack_in_little_time_and_memory(tmp_path):
    files = sorted(ATTACKS.iterdir())
    for name, make in ARCHIVES.items():
        path = tmp_path / f"{name.replace(' ', '_')}.pth"
        make(path)
        files.append(path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", INSPECT, *map(str, files)]

    result = json.loads(subprocess.check_output(command, text=True))

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = result["files"]
    assert len(found) == len(files) >= 15
    for path, (code, words) in found.items():
        assert code == 3, (path, words)
        assert words.startswith("Error: "), path
        assert len(words) < 1500, path
    assert 1024 * result["peak"] < MOST_MEMORY
    assert after.ru_utime - before.ru_utime < 5 * len(files)


def good_files(folder):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    entries = {"state_dict": net.state_dict(), "epoch": 3, "meta": {"CLASSES": ("a", "b")}}
    yield saved(folder / "zip.pth", entries), False
    yield saved(folder / "legacy.pth", entries, legacy=True), True
    code = module_of(a=WEIGHT)
    yield wrap_pickle(folder / "module.pth", code, storages={"0": SIX}), False


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_give_weights_or_a_documented_error(tmp_path, seed):
    chance = random.Random(seed)  # noqa: S311 -- the same mutants every time
    refused = 0
    for path, legacy in good_files(tmp_path):
        for target in mutants(path, chance, legacy=legacy):
            errors = [error for error in refusals(target) if error is not None]
            refused += len(errors)
            assert all(error.exit_code in (3, 5) for error in errors)

    assert refused > 500


def mutants(path, chance, *, legacy, count=250):
    """Copies of a file with a few bytes changed; in a zip, also with its checksums made right."""
    target = path.with_suffix(".mutant")
    whole = path.read_bytes()
    parts = {}
    if not legacy:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    pickle_name = next((name for name in parts if name.endswith("data.pkl")), None)
    for index in range(count):
        if pickle_name is None or index % 3 == 0:
            target.write_bytes(changed(whole, chance))
        else:
            zipped(target, parts | {pickle_name: changed(parts[pickle_name], chance)})
        yield target


def changed(data, chance):
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out))
        match chance.randrange(4):
            case 0:
                out[at] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randint(1, 8)]
            case 2:
                out[at:at] = out[chance.randrange(len(out)) :][: chance.randint(1, 30)]
            case 3:
                out[at] = ord(chance.choice("()}]tuesabcRQ.0q\x85\x86\x93\x81"))
    return bytes(out)


def test_all_that_torch_save_wrote_comes_back_bit_for_bit(tmp_path):
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    entries = {
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "half": torch.arange(6).half().reshape(2, 3).t(),
        "empty": torch.empty(0, 3),
        "numbers": [1, 2.5, True, None, "text", (1, (2, 3))],
        "kinds": [torch.ones(2, dtype=kind) for kind in (torch.int8, torch.bool, torch.bfloat16)],
    }
    for legacy in (False, True):
        path = saved(tmp_path / "run.pth", entries, legacy=legacy)
        expected = torch.load(path, weights_only=True)

        assert same(read_saved(path), expected)


def same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        is_equal = ours.dtype == theirs.dtype and ours.stride() == theirs.stride()
        return is_equal and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


def test_torch_load_never_reads_a_users_file(tmp_path, monkeypatch):
    path = saved(tmp_path / "w.pth", {"a": torch.ones(2)})

    def refuse(*_, **__):
        raise AssertionError("torch.load or pickle was called")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)

    assert read_checkpoint(path).tensors["a"].tolist() == [1, 1]
    assert read_saved(path)["a"].tolist() == [1, 1]
