"""`detect` on videos and cameras."""

import json

import numpy as np
import pytest
from videos import read_frames, write_video

from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.detect import open_detector


@pytest.fixture
def film(place):
    images = [read_image(place.folder / f"images/scene{index % 3}.png") for index in range(6)]
    return write_video(place.folder / "film.mp4", images=images)


def test_json_is_a_line_a_frame(place, film):
    result = place.run("detect", "deploy", "film.mp4", "--runtime", "onnx", "--json", "--every", 2)

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 2, 4]
    assert [line["seconds"] for line in lines] == pytest.approx([0.0, 0.2, 0.4])
    assert {line["video"] for line in lines} == {"film.mp4"}
    pixels = read_frames(film)[2]
    same = open_detector(place.folder / "deploy").detect(pixels, runtime="onnx")
    np.testing.assert_allclose(
        [one["score"] for one in lines[1]["detections"]], same.scores, rtol=1e-5
    )
    assert set(lines[0]["detections"][0]) == {"box", "score", "label", "name"}


def test_ncnn_draws_into_a_video_when_asked(place, film):
    result = place.run("detect", "deploy", "film.mp4", "--video-out", "out/found.mp4", "--limit", 4)

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("frame 0 (0.00 s): ")
    assert "film.mp4: 4 frames" in result.stdout
    assert "wrote out/found.mp4" in result.stdout
    drawn, plain = read_frames(place.folder / "out/found.mp4"), read_frames(film)
    assert len(drawn) == 4
    assert np.abs(drawn[0].astype(int) - plain[0]).max() > 60
    assert not (place.folder / "detections").exists()


def test_a_stream_is_what_detect_all_gives(place):
    detector = open_detector(place.folder / "deploy")
    images = [read_image(path) for path in sorted((place.folder / "images").iterdir())]

    for runtime in ("onnx", "ncnn"):
        whole = detector.detect_all(images, runtime=runtime)
        stream = detector.detect_stream(iter(images), runtime=runtime)
        for ours, theirs in zip(stream, whole, strict=True):
            np.testing.assert_array_equal(ours.boxes, theirs.boxes)
            np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_stream_takes_one_image_at_a_time(place):
    detector = open_detector(place.folder / "deploy")
    image = read_image(place.folder / "images/scene0.png")
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield image

    for runtime in ("onnx", "ncnn"):
        stream = detector.detect_stream(endless(), runtime=runtime)
        taken.clear()
        for _ in range(4):
            next(stream)

        assert len(taken) == 4


def test_a_limit_counts_images_too(place):
    result = place.run("detect", "deploy", "images", "--runtime", "onnx", "--limit", 2, "--json")

    assert len(json.loads(result.stdout)) == 2


def test_a_camera_that_is_not_there_is_exit_4(place):
    result = place.run("detect", "deploy", "--camera", 97)

    assert result.exit_code == 4
    assert result.stderr.splitlines()[0] == ("Error: no camera 97, or no permission to use it")


def test_a_video_that_ends_early_is_told(place, film):
    # an AVI keeps its index behind the frames: cut, it still plays as far as it goes
    short = write_video(place.folder / "short.avi", images=read_frames(film), codec="MJPG")
    short.write_bytes(short.read_bytes()[: int(short.stat().st_size * 0.6)])

    result = place.run("detect", "deploy", "short.avi", "--runtime", "onnx")

    assert result.exit_code == 0, result.output
    assert "short.avi ends after" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "Missing argument 'IMAGES...', or --camera N"),
        (("images", "--camera", 0), 2, "give either IMAGES or --camera, not both"),
        (("film.mp4", "images"), 2, "one video at a time"),
        (("images", "--every", 2), 2, "are for videos and cameras"),
        (("images", "--video-out", "a.mp4"), 2, "are for videos and cameras"),
        (("film.mp4", "--video-out", "./film.mp4"), 2, "would overwrite the input video"),
        (("film.mp4", "--video-out", "a.avi"), 3, "videos are written as MP4"),
        (("gone.mp4",), 3, "gone.mp4: no such video"),
        (("broken.mp4",), 3, "broken.mp4: the file is broken"),
    ],
)
def test_what_is_refused(place, film, words, code, said):
    (place.folder / "broken.mp4").write_bytes(b"no film")

    result = place.run("detect", "deploy", *words, "--runtime", "onnx")

    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert film.exists()


def test_ffmpeg_has_no_word_in_it(place, film):
    (place.folder / "cut.mp4").write_bytes(film.read_bytes()[:500])

    child = place.spawn("detect", "deploy", "cut.mp4")
    _, said = child.communicate()

    assert child.returncode == 3
    assert said.startswith("Error: cut.mp4: the file is broken")
