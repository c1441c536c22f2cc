"""Frames with their number and time; what is no video and which camera is not there is told."""

from pathlib import Path

import numpy as np
import pytest
from videos import RATE, read_frames, write_video

from mbv3ssd_deploy.data.video import VideoFile, is_video, opened_camera, opened_video
from mbv3ssd_deploy.errors import DatasetError, OutputError, RuntimeUnavailableError

NOWHERE = 97  # a camera that nobody has


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_frames_have_index_time_and_rgb_pixels(tmp_path, name, codec):
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 200
    path = write_video(tmp_path / name, images=[red] * 5, codec=codec)

    with opened_video(path) as source:
        frames = list(source.frames())

        assert (source.frame_count, source.frames_per_second) == (5, RATE)
        assert source.grabbed == 5
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert frames[0].pixels.shape == (120, 160, 3)
    assert frames[0].pixels.dtype == np.uint8
    assert frames[0].pixels[60, 80] == pytest.approx([200, 0, 0], abs=12)


@pytest.mark.parametrize(
    ("every", "limit", "indices"),
    [
        (5, None, [0, 5, 10]),
        (1, 3, [0, 1, 2]),
        (4, 2, [0, 4]),
        (100, None, [0]),
        (1, 99, range(12)),
    ],
)
def test_every_nth_frame_and_a_limit(tmp_path, every, limit, indices):
    with opened_video(write_video(tmp_path / "a.mp4")) as source:
        frames = list(source.frames(every=every, limit=limit))

    assert [frame.index for frame in frames] == list(indices)
    greys = [frame.pixels.mean() for frame in frames]
    assert greys == pytest.approx([20 * index for index in indices], abs=6)


def test_files_that_are_no_video(tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(write_video(tmp_path / "a.mp4").read_bytes()[:500])

    with pytest.raises(DatasetError, match="no such video"), opened_video(tmp_path / "gone.mp4"):
        pass
    with pytest.raises(DatasetError, match="no video that OpenCV can read"), opened_video(cut):
        pass


def test_a_camera_that_is_not_there(capfd):
    with (
        pytest.raises(RuntimeUnavailableError, match=f"no camera {NOWHERE}"),
        opened_camera(NOWHERE),
    ):
        pass
    assert capfd.readouterr().err == ""


def test_video_files_are_told_by_their_extension():
    assert is_video(Path("Film.MP4"))
    assert is_video(Path("film.avi"))
    assert not is_video(Path("photo.jpg"))


def test_what_is_written_can_be_read(tmp_path):
    target = tmp_path / "new folder" / "out.mp4"
    with VideoFile(target, 5.0) as file:
        for grey in (0, 100, 200):
            file.write(np.full((121, 161, 3), grey, np.uint8))
        assert not target.exists()

    frames = read_frames(target)
    assert [frame.mean() for frame in frames] == pytest.approx([0, 100, 200], abs=6)
    assert frames[0].shape == (120, 160, 3)
    assert list(target.parent.iterdir()) == [target]


def write_one_and_raise(target, error):
    with VideoFile(target, 5.0) as file:
        file.write(np.zeros((120, 160, 3), np.uint8))
        raise error


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"of yesterday")

    with pytest.raises(ZeroDivisionError):
        write_one_and_raise(target, ZeroDivisionError())

    assert target.read_bytes() == b"of yesterday"
    assert list(tmp_path.iterdir()) == [target]


def test_stopping_a_camera_keeps_what_was_written(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "out.mp4", KeyboardInterrupt())

    assert len(read_frames(tmp_path / "out.mp4")) == 1


def test_videos_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"MP4, not as \.avi"):
        VideoFile(tmp_path / "out.avi", 5.0)
    with pytest.raises(OutputError, match="a folder has that name"):
        VideoFile(tmp_path / "folder.mp4", 5.0)
    with (
        pytest.raises(OutputError, match="cannot write the video"),
        VideoFile(tmp_path / "file" / "out.mp4", 5.0) as file,
    ):
        file.write(np.zeros((120, 160, 3), np.uint8))
