"""`bench`: what it prints, writes and returns; never its times."""

import json

import pytest

ONE_ROW = ("--runtime", "ncnn", "--precision", "fp32", "--threads", "1", "--rounds", "5")


def test_a_table_and_the_next_command(place):
    result = place.run("bench", *ONE_ROW)

    assert result.exit_code == 0, result.output
    assert "ncnn fp32, 1 thread" in result.stdout
    assert "5 rounds on a sample image; medians in milliseconds" in result.stdout
    assert "next: mbv3ssd-deploy bench --layers" in result.stdout


def test_json_is_the_whole_report_and_nothing_else(place):
    result = place.run("bench", "deploy", "--images", "images", "--limit", "2", *ONE_ROW, "--json")

    report = json.loads(result.stdout)
    (row,) = report["rows"]
    assert report["images"] == ["images/scene0.png", "images/scene1.png"]
    assert row["title"] == "ncnn fp32, 1 thread"
    assert row["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert row["detections"] is not None


def test_a_foreign_param_beside_a_bundle_and_a_chart(place):
    (place.folder / "foreign.param").write_bytes(
        (place.folder / "deploy" / "model.ncnn.param").read_bytes()
    )

    words = ("deploy", "foreign.param", *ONE_ROW, "--chart", "speed.png")
    result = place.run("bench", *words)

    assert result.exit_code == 0, result.output
    assert "foreign.param has no .bin beside it: its weights are random" in result.stdout
    assert (place.folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "wrote speed.png" in result.stdout


def test_the_slowest_layers_are_named_with_how_they_were_measured(place):
    result = place.run("bench", *ONE_ROW, "--layers")

    assert "the slowest 10 layers" in result.stdout
    assert "ConvolutionDepthWise" in result.stdout
    assert "less the cost of extracting it again" in result.stdout
    assert "next:" not in result.stdout


def test_without_its_checkpoint_torch_is_left_out_with_the_reason(place):
    (place.folder / "tiny.pth").rename(place.folder / "elsewhere.pth")

    words = ("--runtime", "torch", "--runtime", "onnx", "--threads", "1", "--rounds", "5")
    result = place.run("bench", *words)

    assert result.exit_code == 0, result.output
    assert "left out: deploy: no torch row: its checkpoint tiny.pth is missing" in result.stderr


def test_a_row_that_fails_is_named_and_the_exit_code_is_1(place):
    text = "7767517\n2 2\nInput in 0 1 in 0=8 1=8 2=3\nNoSuchLayer n 1 1 in out\n"
    (place.folder / "broken.param").write_text(text)
    (place.folder / "broken.bin").write_bytes(b"")

    result = place.run("bench", "deploy", "broken.param", *ONE_ROW)

    assert result.exit_code == 1
    assert "failed: broken.param: ncnn fp32, 1 thread: ncnn cannot load it" in result.stderr
    assert "ncnn fp32, 1 thread" in result.stdout


def test_a_foreign_network_alone_runs_on_random_numbers(place):
    text = "7767517\n2 2\nInput in 0 1 in 0=8 1=8 2=3\nReLU n 1 1 in out\n"
    (place.folder / "alone.param").write_text(text)

    result = place.run("bench", "alone.param", *ONE_ROW)

    assert "5 rounds on seeded random numbers; medians" in result.stdout


def test_one_number_as_the_input_size_is_a_square(place):
    text = "7767517\n2 2\nInput in 0 1 in\nReLU n 1 1 in out\n"
    (place.folder / "alone.param").write_text(text)

    result = place.run("bench", "alone.param", *ONE_ROW, "--input-size", "8")

    assert result.exit_code == 0, result.output


def test_a_param_that_ncnn_refuses_names_inspect(place):
    text = "7767517\n3 2\nInput in 0 1 in 0=8 1=8 2=3\nReLU n 1 1 in out\n"
    (place.folder / "counts.param").write_text(text)

    result = place.run("bench", "counts.param", *ONE_ROW)

    assert result.exit_code == 3
    assert "`mbv3ssd-deploy inspect counts.param` says what is wrong with it" in result.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("nowhere",), 3, "no such bundle folder"),
        (("images/scene0.png",), 3, "neither a bundle folder"),
        (("heavy.param",), 3, "random ones are made for up to 67,108,864 (256 MB)"),
        (("empty.param",), 3, "an ncnn .param begins with 7767517"),
        (("--runtime", "tflite"), 2, "'tflite' is not one of"),
        (("--runtime", "onnx", "--precision", "bf16"), 3, "onnx cannot compute in bf16"),
        (("--runtime", "ncnn", "--device", "cuda"), 4, "ncnn does not run on CUDA"),
        (("--input-size", "300x"), 2, "neither N nor HxW"),
        (("--input-size", "²"), 2, "neither N nor HxW"),
        (("--chart", "speed.jpg"), 2, "ends in .png"),
        (("--images", "nowhere"), 3, "no such file or folder of images"),
        (("--rounds", "1"), 2, "--rounds"),
    ],
)
def test_wrong_input_is_an_error(place, words, exit_code, message):
    (place.folder / "empty.param").write_text("")
    heavy = "InnerProduct ip 1 1 in out 0=2147483647 2=2147483647"
    (place.folder / "heavy.param").write_text(
        f"7767517\n2 2\nInput in 0 1 in 0=8 1=8 2=3\n{heavy}\n"
    )

    result = place.run("bench", *words)

    assert result.exit_code == exit_code
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_gpu_that_is_not_there_is_a_missing_device(place):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")

    result = place.run("bench", "--device", "cuda", "--runtime", "torch", "--rounds", "5")

    assert result.exit_code == 4
    assert "finds no cuda" in result.stderr
