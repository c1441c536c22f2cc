"""Moving pictures: frames of video files and cameras, and annotated video back to disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.data.images import silent_opencv
from mbv3ssd_deploy.errors import DatasetError, OutputError, RuntimeUnavailableError

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

_FFMPEG_LEVEL, _FFMPEG_QUIET = "OPENCV_FFMPEG_LOGLEVEL", "-8"
_USUAL_RATE = 25.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        index: its number in the video, from 0.
        seconds: when it is shown, from the beginning.
        pixels: RGB uint8 (H, W, 3).
    """

    index: int
    seconds: float
    pixels: U8


class VideoSource:
    """A video file or a camera that was opened; `frames` runs through it once."""

    def __init__(self, name: str, capture: cv2.VideoCapture, *, is_camera: bool) -> None:
        """Take over `capture`, which is open."""
        self.name = name
        self.is_camera = is_camera
        self._capture = capture
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames_per_second = rate if 0 < rate < 1000 else _USUAL_RATE
        self.frame_count = int(count) if count > 0 and not is_camera else None
        """The number of frames in the header; None if it is unknown."""
        self.grabbed = 0
        """How many frames have passed so far, those left out counted."""

    def frames(self, *, every: int = 1, limit: int | None = None) -> Iterator[Frame]:
        """Yield frames 0, `every`, 2 x `every`, ..., at most `limit` of them."""
        given = 0
        while limit is None or given < limit:
            if not self._capture.grab():
                return
            index, self.grabbed = self.grabbed, self.grabbed + 1
            if index % every:
                continue  # a skipped frame is not decoded
            found, image_bgr = self._capture.retrieve()
            if not found:
                continue
            given += 1
            image = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            yield Frame(index, self._seconds(index), image)

    def _seconds(self, index: int) -> float:
        stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return stamp if stamp > 0 and not self.is_camera else index / self.frames_per_second

    def close(self) -> None:
        """Let go of the file or the device."""
        self._capture.release()


def is_video(path: Path) -> bool:
    """Return whether a path is a video file, by its extension."""
    return path.suffix.lower() in VIDEO_EXTENSIONS


@contextlib.contextmanager
def opened_video(path: Path) -> Iterator[VideoSource]:
    """Yield a video file.

    Raises:
        DatasetError: it is not there, or not a video that OpenCV can read.
    """
    if not path.is_file():
        raise DatasetError("no such video", where=str(path))
    with _quiet():
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise DatasetError(
                "the file is broken, or no video that OpenCV can read",
                where=str(path),
                hint="convert it to MP4 (H.264) and try again",
            )
        with contextlib.closing(VideoSource(str(path), capture, is_camera=False)) as source:
            yield source


@contextlib.contextmanager
def opened_camera(number: int) -> Iterator[VideoSource]:
    """Yield the camera that the system counts as `number`, from 0.

    Raises:
        RuntimeUnavailableError: no such camera, or no permission.
    """
    with _quiet():
        capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            raise RuntimeUnavailableError(
                f"no camera {number}, or no permission to use it",
                hint="--camera 0 is the first one; on Linux it is /dev/video0, and your user must "
                "be allowed to read it",
            )
        with contextlib.closing(VideoSource(f"camera {number}", capture, is_camera=True)) as source:
            yield source


class VideoFile:
    """An MP4 file that appears whole when the `with` block ends well, and not at all otherwise.

    The frames that were written before Ctrl-C are kept.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        """Take note of where to; nothing is written before the first frame.

        Raises:
            OutputError: the extension is not .mp4, or a folder has that name.
        """
        if path.suffix.lower() != ".mp4":
            raise OutputError(
                f"videos are written as MP4, not as {path.suffix or 'a file without extension'}",
                where=str(path),
                hint="let its name end in .mp4",
            )
        if path.is_dir():
            raise OutputError("a folder has that name", where=str(path))
        self._path, self._rate = path, frames_per_second
        self._partial: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> Self:
        return self

    def write(self, image_rgb: U8) -> None:
        """Add a frame, RGB uint8 (H, W, 3), as large as the first.

        An odd last row or column is cut off: the codec halves colours.

        Raises:
            OutputError: the file cannot be written.
        """
        height, width = (side // 2 * 2 for side in image_rgb.shape[:2])
        if self._writer is None:
            self._size = (width, height)
            self._writer = self._begun()
        image_bgr = cv2.cvtColor(image_rgb[:height, :width], cv2.COLOR_RGB2BGR)
        if (width, height) != self._size:
            image_bgr = cv2.resize(image_bgr, self._size)
        self._writer.write(image_bgr)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is None or self._partial is None:
            return
        self._writer.release()
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                with self._partial.open("rb") as file:
                    os.fsync(file.fileno())
                self._partial.chmod(0o644)  # mkstemp makes it private; a result is not
                self._partial.replace(self._path)
        except OSError as problem:
            raise self._failure(problem.strerror or str(problem)) from problem
        finally:
            self._partial.unlink(missing_ok=True)

    def _begun(self) -> cv2.VideoWriter:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f".{self._path.stem}.", suffix=".mp4", dir=self._path.parent
            )
        except OSError as problem:
            raise self._failure(problem.strerror or str(problem)) from problem
        os.close(handle)
        self._partial = Path(name)
        with _quiet():
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(name, codec, self._rate, self._size)
        if not writer.isOpened():
            self._partial.unlink(missing_ok=True)
            raise self._failure("this OpenCV cannot write MP4")
        return writer

    def _failure(self, reason: str) -> OutputError:
        return OutputError(f"cannot write the video: {reason}", where=str(self._path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg off stderr: the caller gets an error that names the file."""
    before = os.environ.get(_FFMPEG_LEVEL)
    os.environ.setdefault(_FFMPEG_LEVEL, _FFMPEG_QUIET)
    try:
        with silent_opencv():
            yield
    finally:
        if before is None:
            os.environ.pop(_FFMPEG_LEVEL, None)
