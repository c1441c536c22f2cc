"""The three commands as a user types them, and what they leave behind."""

import json

import onnx
import pytest

from mbv3ssd_deploy.bundle.bundle import read_bundle


def test_a_checkpoint_becomes_a_verified_bundle(place):
    exported = place.run("export", "tiny.pth", "-o", "out")
    assert exported.exit_code == 0, exported.output
    assert "family native" in exported.output
    assert "next: mbv3ssd-deploy to-ncnn out" in exported.output

    lowered = place.run("to-ncnn", "out")
    assert lowered.exit_code == 0, lowered.output
    assert "PriorBox" in lowered.output
    assert "next: mbv3ssd-deploy verify out --images" in lowered.output

    verified = place.run("verify", "out", "--images", "images")
    assert verified.exit_code == 0, verified.output
    assert "PASS on 3 images" in verified.output

    names = {"body.onnx", "detector.json", "model.ncnn.param", "model.ncnn.bin", "verify.json"}
    assert set(place.files("out")) == names
    assert json.loads((place.folder / "out/verify.json").read_text())["verdict"] == "PASS"


def test_convert_does_all_three(place):
    result = place.run("convert", "tiny.pth", "--images", "images", "-o", "out", "--conf", "0.05")

    assert result.exit_code == 0, result.output
    assert read_bundle(place.folder / "out").manifest.ncnn.score_threshold == 0.05
    assert "PASS on 3 images" in result.output


@pytest.mark.parametrize("command", ["export", "to-ncnn", "verify", "convert", "inspect", "detect"])
def test_json_is_one_value_and_nothing_else(place, command):
    words = {
        "export": ("tiny.pth",),
        "to-ncnn": (),
        "verify": ("--images", "images", "--limit", "2"),
        "convert": ("tiny.pth", "--images", "images"),
        "inspect": ("tiny.pth",),
        "detect": ("deploy", "images"),
    }[command]

    result = place.run(command, *words, "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)


def test_quiet_says_nothing(place):
    result = place.run("export", "tiny.pth", "-q")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(place):
    elsewhere = place.folder / "another folder"
    elsewhere.mkdir()
    copy = elsewhere / "renamed.pth"
    copy.write_bytes((place.folder / "tiny.pth").read_bytes())

    place.run("export", "tiny.pth", "-o", "one")
    place.run("to-ncnn", "one")
    place.run("export", copy, "-o", elsewhere / "two")
    place.run("to-ncnn", elsewhere / "two")

    one, two = place.files("one"), place.files("another folder/two")
    for name in ("body.onnx", "model.ncnn.param", "model.ncnn.bin"):
        assert one[name] == two[name], name
    assert b"a place" not in one["body.onnx"]


def test_a_new_export_makes_the_old_ncnn_files_go(place):
    assert place.run("export", "tiny.pth").exit_code == 0

    assert set(place.files()) == {"body.onnx", "detector.json"}


def test_a_lone_body_is_enough_for_to_ncnn(place):
    alone = place.folder / "alone"
    alone.mkdir()
    (alone / "any.onnx").write_bytes((place.folder / "deploy/body.onnx").read_bytes())

    result = place.run("to-ncnn", alone / "any.onnx")

    assert result.exit_code == 0, result.output
    bundle = read_bundle(alone)
    assert bundle.manifest.checkpoint is None
    assert bundle.param_path.read_bytes() == (place.folder / "deploy/model.ncnn.param").read_bytes()
    unknown = place.run("verify", alone, "--images", "images")
    assert unknown.exit_code == 3
    assert "--checkpoint" in unknown.stderr
    named = place.run("verify", alone, "--images", "images", "--checkpoint", "tiny.pth")
    assert named.exit_code == 0, named.output


def test_the_onnx_flags(place):
    result = place.run("export", "tiny.pth", "-o", "out", "--opset", "13", "--batch", "2")

    model = onnx.load(place.folder / "out/body.onnx")
    assert model.opset_import[0].version == 13
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert "to-ncnn" not in result.output.rsplit("next:", 1)[1]
    refused = place.run("to-ncnn", "out")
    assert refused.exit_code == 3
    assert "--batch 1" in refused.stderr
    verified = place.run("verify", "out", "--images", "images")
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize(
    ("flags", "outputs", "ends"),
    [
        (("--raw-heads",), "concat", {"loc", "conf"}),
        (("--raw-heads=levels",), "levels", {"loc_0", "conf_5"}),
        (("--priors", "constant", "--fp32"), "detections", {"detection_out"}),
    ],
)
def test_the_ncnn_flags(place, flags, outputs, ends):
    result = place.run("to-ncnn", "deploy", *flags)

    assert result.exit_code == 0, result.output
    assert read_bundle(place.folder / "deploy").manifest.ncnn.outputs == outputs
    words = (place.folder / "deploy/model.ncnn.param").read_text().split()
    assert ends <= set(words)
    verified = place.run("verify", "--images", "images")
    assert verified.exit_code == 0, verified.output


def test_preprocessing_flags_travel_to_the_contract(place):
    flags = ("--mean", "110", "120", "130", "--std", "90", "95", "100", "--bgr")

    place.run("export", "tiny.pth", "-o", "out", *flags)

    wanted = read_bundle(place.folder / "out").spec.input
    assert (wanted.mean, wanted.std) == ((110, 120, 130), (90, 95, 100))
    assert wanted.channel_order == "bgr"
    place.run("to-ncnn", "out")
    verified = place.run("verify", "out", "--images", "images")
    assert verified.exit_code == 0, verified.output


def test_a_spec_template_comes_back_through_spec(place):
    place.run("inspect", "tiny.pth", "--write-spec", "spec.json")
    plain = json.loads((place.folder / "spec.json").read_text())
    plain["decode"]["score_threshold"] = 0.125
    (place.folder / "spec.json").write_text(json.dumps(plain))

    result = place.run("export", "tiny.pth", "-o", "out", "--spec", "spec.json")

    assert result.exit_code == 0, result.output
    assert read_bundle(place.folder / "out").spec.decode.score_threshold == 0.125


def test_labels_name_the_classes(place):
    (place.folder / "labels.txt").write_text("cat\ndog\ncow\n")

    place.run("export", "tiny.pth", "-o", "out", "--labels", "labels.txt")

    assert read_bundle(place.folder / "out").spec.class_names == ("background", "cat", "dog", "cow")


@pytest.mark.parametrize("runtime", ["ncnn", "onnx", "torch"])
def test_detect_draws_on_copies_and_all_runtimes_agree(place, runtime):
    result = place.run("detect", "deploy", "images", "--runtime", runtime, "-o", "drawn")

    assert result.exit_code == 0, result.output
    drawn = sorted(path.name for path in (place.folder / "drawn").iterdir())
    assert drawn == ["scene0.png", "scene1.png", "scene2.png"]

    best, reference = (
        json.loads(place.run("detect", "deploy", "images", "--runtime", name, "--json").stdout)[0]
        for name in (runtime, "torch")
    )
    best, reference = best["detections"][0], reference["detections"][0]
    assert best["label"] == reference["label"] >= 1
    assert best["score"] == pytest.approx(reference["score"], abs=0.02)
    assert best["box"] == pytest.approx(reference["box"], abs=1.0)


def test_inspect_knows_every_kind_of_file(place):
    for path, words in {
        "tiny.pth": "family native",
        "deploy/body.onnx": "opset 17",
        "deploy": "from ../tiny.pth",
        "deploy/detector.json": "ncnn:",
        "deploy/model.ncnn.param": "no findings",
    }.items():
        result = place.run("inspect", path)
        assert result.exit_code == 0, result.output
        assert words in result.output


def test_inspect_names_a_slip_in_a_foreign_param(place):
    slip = (
        "7767517\n2 2\nInput input 0 1 input\n"
        "PriorBox p 1 1 input priors -23300=1,6.0e+01 9=300 10=300 11=-233 12=-233\n"
    )
    (place.folder / "foreign.param").write_text(slip)

    result = place.run("inspect", "foreign.param")

    assert result.exit_code == 1
    assert "foreign.param:4: " in result.output
    assert "step_width" in result.output or "step_w" in result.output


def test_env_can_be_pasted(place):
    result = place.run("env")

    assert result.exit_code == 0
    for name in ("python", "torch", "onnxruntime", "ncnn", "mbv3ssd-deploy"):
        assert name in result.output


@pytest.mark.parametrize("raw_heads", ["--raw-heads=concat", "--raw-heads=levels"])
def test_detect_reads_raw_heads(place, raw_heads):
    before = json.loads(
        place.run("detect", "deploy", "images", "--runtime", "onnx", "--json").stdout
    )
    place.run("to-ncnn", raw_heads, "--fp32")

    result = place.run("detect", "deploy", "images", "--json")

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found[0]["detections"][0]["score"] == pytest.approx(
        before[0]["detections"][0]["score"], abs=2e-3
    )


def test_detect_takes_a_body_of_any_batch(place):
    place.run("export", "tiny.pth", "-o", "out", "--batch", "2")

    result = place.run("detect", "out", "images", "--runtime", "onnx", "--json")

    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == 3


def test_the_next_command_can_be_pasted(place):
    result = place.run("export", "tiny.pth", "-o", "my bundle")

    assert "next: mbv3ssd-deploy to-ncnn 'my bundle'" in result.output


def test_equal_names_are_drawn_side_by_side(place):
    other = place.folder / "other"
    other.mkdir()
    (other / "scene0.png").write_bytes((place.folder / "images/scene0.png").read_bytes())

    place.run("detect", "deploy", "images/scene0.png", "other", "-o", "drawn")

    names = sorted(path.name for path in (place.folder / "drawn").iterdir())
    assert names == ["scene0-2.png", "scene0.png"]


def test_inspect_says_which_layers_are_kept_out_of_float16(place):
    place.run("to-ncnn")
    guarded = place.run("inspect", "deploy/model.ncnn.param")
    place.run("to-ncnn", "--no-fp16-guard", "--no-bf16-guard")
    bare = place.run("inspect", "deploy/model.ncnn.param")
    told = json.loads(place.run("inspect", "deploy/model.ncnn.param", "--json").stdout)

    assert "31=1 keeps" in guarded.output
    assert "31=1 is missing on" in bare.output
    assert told["fp16_unguarded"]
    assert told["fp16_guarded"] == []
