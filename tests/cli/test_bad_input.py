"""What a user does wrong, and the sentence that comes back."""

import json
import os
import pickle
import resource
import signal
import time

import pytest
import torch

from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.cli.flags import FAMILY_NAMES


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def spoilt_checkpoint(place, change):
    """A copy of the checkpoint with `change` applied to its state_dict."""
    entries = torch.load(place.folder / "tiny.pth", weights_only=True)
    change(entries["state_dict"])
    torch.save(entries, place.folder / "spoilt.pth")
    return "spoilt.pth"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such"),
        (b"", "empty"),
        (b"PK\x03\x04 and then nothing", ""),
        (b"these are the weights, honestly", ""),
    ],
    ids=["missing", "empty", "truncated", "text"],
)
def test_files_that_are_no_checkpoint(place, content, words):
    before = place.files()
    if content is not None:
        (place.folder / "bad.pth").write_bytes(content)

    result = place.run("export", "bad.pth")

    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("Error: bad.pth: ")
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert place.files() == before


def test_a_truncated_checkpoint(place):
    data = (place.folder / "tiny.pth").read_bytes()
    (place.folder / "bad.pth").write_bytes(data[: len(data) // 2])

    result = place.run("export", "bad.pth")

    assert result.exit_code == 3, result.output


def test_a_pickle_that_would_run_code_is_refused(place):
    marker = place.folder / "pwned"
    torch.save({"state_dict": Payload(marker)}, place.folder / "bad.pth")
    (place.folder / "bad.pkl").write_bytes(pickle.dumps(Payload(marker)))

    for name in ("bad.pth", "bad.pkl"):
        result = place.run("export", name)
        assert result.exit_code == 5, result.output
        assert "system" in result.stderr
        assert "hint:" in result.stderr
    assert not marker.exists()


def test_a_network_of_another_kind(place):
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).state_dict(), place.folder / "x.pth")

    result = place.run("export", "x.pth")

    assert result.exit_code == 3
    assert "missing" in result.stderr or "no family" in result.stderr or "lacks" in result.stderr


def test_weights_that_are_not_numbers_are_named(place):
    def poison(state):
        key = "backbone.features.0.0.0.weight"
        state[key] = state[key].clone()
        state[key][0, 0, 0, 0] = float("nan")

    result = place.run("export", spoilt_checkpoint(place, poison))

    assert result.exit_code == 3
    assert "backbone.features.0.0.0.weight" in result.stderr


@pytest.mark.parametrize("command", ["export", "inspect"])
@pytest.mark.parametrize("entries", [{}, [1], {"optimizer": {}, "epoch": 1}])
def test_a_file_without_weights_is_named(place, entries, command):
    torch.save(entries, place.folder / "empty.pth")

    result = place.run(command, "empty.pth")

    assert result.exit_code == 3
    assert result.stderr.startswith("Error: empty.pth: the file holds ")
    assert "torch.save(model.state_dict()" in result.stderr


def test_a_template_is_written_though_the_heads_contradict_the_family(place):
    def four_boxes(weights):
        for kind, count in (("classification", 4), ("regression", 4)):
            for leaf in ("weight", "bias"):
                key = f"head.{kind}_head.module_list.0.1.{leaf}"
                weights[key] = weights[key][: len(weights[key]) * count // 6]

    spoilt = spoilt_checkpoint(place, four_boxes)

    result = place.run("inspect", spoilt, "--write-spec", "fork.json")

    assert result.exit_code == 3
    assert "the heads predict 4-6-6-6-6-6 boxes per cell" in result.stderr
    assert "wrote fork.json" in result.stderr
    template = json.loads((place.folder / "fork.json").read_text())
    template["priors"]["levels"][0]["ratios"] = [2.0, 0.5]
    (place.folder / "fork.json").write_text(json.dumps(template))
    assert place.run("inspect", spoilt, "--spec", "fork.json").exit_code == 0


def test_the_families_are_named_in_the_help(place):
    assert tuple(family.name for family in FAMILIES) == FAMILY_NAMES
    text = " ".join(place.run("export", "--help").stdout.split())
    assert f"instead of recognising it: {', '.join(FAMILY_NAMES)}." in text


def test_half_a_checkpoint(place):
    def halve(state):
        for key in list(state)[len(state) // 2 :]:
            del state[key]

    result = place.run("export", spoilt_checkpoint(place, halve))

    assert result.exit_code == 3
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--num-classes", "7"), "7"),
        (("--labels", "labels.txt"), "2"),
        (("--family", "nonsense"), "nonsense"),
        (("--opset", "5"), "opset"),
        (("--opset", "99"), "opset"),
        (("--std", "0", "1", "1"), "std"),
        (("--spec", "broken.json"), "broken.json"),
        (("--spec", "unknown.json"), "surprise"),
    ],
)
def test_flags_that_contradict_the_checkpoint(place, flags, words):
    before = place.files()
    (place.folder / "labels.txt").write_text("cat\ndog\n")
    (place.folder / "broken.json").write_text("{")
    (place.folder / "unknown.json").write_text('{"surprise": 1}')

    result = place.run("export", "tiny.pth", *flags)

    assert result.exit_code == 3, result.output
    assert words in result.stderr
    assert place.files() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n\nb\n", "labels.txt:2"),
        ("a\na\nb\n", "duplicate class names: a"),
        ("\n", "a class name is missing"),
    ],
)
def test_labels_that_cannot_be(place, text, words):
    (place.folder / "labels.txt").write_text(text)

    result = place.run("export", "tiny.pth", "--labels", "labels.txt")

    assert result.exit_code == 3
    assert words in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("export",),
        ("export", "tiny.pth", "--imgsz", "big"),
        ("verify",),
        ("to-ncnn", "--conf", "2"),
        ("to-ncnn", "--top-k", "0"),
        ("exprot", "tiny.pth"),
        ("export", "tiny.pth", "-v", "-q"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(place, words):
    result = place.run(*words)

    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr


def test_a_typing_slip_is_answered_with_the_right_word(place):
    assert "Did you mean 'export'?" in place.run("exprot").stderr


def test_to_ncnn_without_a_bundle(place):
    result = place.run("to-ncnn", "nowhere")

    assert result.exit_code == 3
    assert "mbv3ssd-deploy export" in result.stderr


def test_to_ncnn_on_files_that_are_no_body(place):
    (place.folder / "x.onnx").write_bytes(b"not onnx")

    result = place.run("to-ncnn", "x.onnx")

    assert result.exit_code == 3
    assert "x.onnx" in result.stderr


def test_a_bundle_that_was_tampered_with(place):
    path = place.folder / "deploy/model.ncnn.bin"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")

    result = place.run("verify", "--images", "images")

    assert result.exit_code == 3
    assert "model.ncnn.bin has changed" in result.stderr
    assert "to-ncnn" in result.stderr


def test_the_checkpoint_is_gone_or_another(place):
    (place.folder / "tiny.pth").rename(place.folder / "moved.pth")

    gone = place.run("verify", "--images", "images")
    found = place.run("verify", "--images", "images", "--checkpoint", "moved.pth")
    (place.folder / "tiny.pth").write_bytes(b"another")
    changed = place.run("verify", "--images", "images")

    assert (gone.exit_code, found.exit_code, changed.exit_code) == (3, 0, 3)
    assert "--checkpoint" in gone.stderr
    assert "--checkpoint" in changed.stderr


def test_image_folders_that_prove_nothing(place):
    (place.folder / "none").mkdir()
    (place.folder / "none/notes.txt").write_text("no image")

    empty = place.run("verify", "--images", "none")
    missing = place.run("verify", "--images", "nowhere")

    assert (empty.exit_code, missing.exit_code) == (3, 3)
    assert ".jpg" in empty.stderr


def test_broken_images_among_good_ones_are_skipped_and_counted(place):
    (place.folder / "images/broken.jpg").write_bytes(b"\xff\xd8 not really")

    result = place.run("verify", "--images", "images")

    assert result.exit_code == 0, result.output
    assert "skipped" in result.stderr
    assert "broken.jpg" in result.stderr
    assert len(json.loads((place.folder / "deploy/verify.json").read_text())["skipped"]) == 1


def test_too_few_boxes_prove_nothing(place):
    plain = {"decode": {"score_threshold": 1.0}}
    (place.folder / "blind.json").write_text(json.dumps(plain))
    place.run("export", "tiny.pth", "-o", "blind", "--spec", "blind.json")
    place.run("to-ncnn", "blind")

    result = place.run("verify", "blind", "--images", "images")

    assert result.exit_code == 1, result.output
    assert "NOT ENOUGH EVIDENCE" in result.output


def test_cuda_where_there_is_none_is_exit_code_4(place):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")

    result = place.run("verify", "--images", "images", "--device", "cuda")

    assert result.exit_code == 4
    assert "cuda" in result.stderr.lower()


def test_priors_as_layers_only_where_they_are_exact(place):
    changes = {"priors": {"clip": "centre_form"}}
    (place.folder / "clip.json").write_text(json.dumps(changes))
    place.run("export", "tiny.pth", "-o", "out", "--imgsz", "300", "--spec", "clip.json")

    forced = place.run("to-ncnn", "out", "--priors", "layer")
    auto = place.run("to-ncnn", "out")

    assert forced.exit_code == 3
    assert "level" in forced.stderr
    assert auto.exit_code == 0
    assert "MemoryData" in auto.output


def test_a_foreign_folder_is_not_overwritten(place):
    other = place.folder / "other"
    other.mkdir()
    (other / "body.onnx").write_bytes(b"mine")

    result = place.run("export", "tiny.pth", "-o", "other")

    assert result.exit_code == 3
    assert (other / "body.onnx").read_bytes() == b"mine"


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("words", [("export", "tiny.pth"), ("to-ncnn",)], ids=" ".join)
def test_no_space_leaves_the_old_bundle(place, words):
    before = place.files()

    process = place.spawn(*words, preexec_fn=limit_file_size)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 3, said
    assert "Traceback" not in said
    assert place.files() == before


@pytest.mark.parametrize("after_s", [0.3, 1.5, 3.0])
def test_an_interrupt_leaves_a_whole_bundle(place, after_s):
    before = place.files()

    process = place.spawn("convert", "tiny.pth", "--images", "images")
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    # -2: the shell calls it 130 too; C code that runs Python makes the interpreter end that way
    assert process.returncode in {130, -signal.SIGINT, 0, 1}, said
    assert "Traceback" not in said
    partial = [name for name in place.files() if name.endswith(".partial")]
    assert partial == []
    if process.returncode not in {0, 1} and place.files() != before:
        assert place.run("inspect", "deploy").exit_code == 0


def test_the_bundle_behind_raw_heads_is_answered_with_what_to_write(place):
    result = place.run("to-ncnn", "--raw-heads", "deploy")

    assert result.exit_code == 2
    assert "--raw-heads=concat" in result.stderr


def test_a_lone_body_beside_files_of_our_names_is_refused(place):
    other = place.folder / "other"
    other.mkdir()
    (other / "mine.onnx").write_bytes((place.folder / "deploy/body.onnx").read_bytes())
    (other / "model.ncnn.param").write_bytes(b"hand-made")

    result = place.run("to-ncnn", "other/mine.onnx")

    assert result.exit_code == 3
    assert (other / "model.ncnn.param").read_bytes() == b"hand-made"
    assert sorted(path.name for path in other.iterdir()) == ["mine.onnx", "model.ncnn.param"]


def test_detect_never_draws_over_an_original(place):
    before = (place.folder / "images/scene0.png").read_bytes()

    result = place.run("detect", "deploy", "images/scene0.png", "-o", "images")

    assert result.exit_code == 3
    assert "-o" in result.stderr
    assert (place.folder / "images/scene0.png").read_bytes() == before


def test_detect_with_torch_refuses_a_changed_checkpoint(place):
    torch.save({}, place.folder / "tiny.pth")

    result = place.run("detect", "deploy", "images", "--runtime", "torch")

    assert result.exit_code == 3
    assert "changed" in result.stderr


@pytest.mark.parametrize("command", ["export", "inspect"])
def test_json_nested_without_end_is_a_sentence(place, command):
    deep = "[" * 100_000 + "]" * 100_000
    (place.folder / "deep.json").write_text(deep)
    (place.folder / "deploy/detector.json").write_text(deep)

    words = ("tiny.pth", "--spec", "deep.json") if command == "export" else ("deploy",)
    result = place.run(command, *words)

    assert result.exit_code == 3, result.output
