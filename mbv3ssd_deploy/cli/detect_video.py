"""`detect` on moving pictures: a line a frame, and an annotated copy."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mbv3ssd_deploy.cli.detection_words import in_words, json_from_detections
from mbv3ssd_deploy.cli.output import Output

if TYPE_CHECKING:
    from mbv3ssd_deploy.core.arrays import U8
    from mbv3ssd_deploy.core.detections import Detections
    from mbv3ssd_deploy.data.video import Frame, VideoFile, VideoSource
    from mbv3ssd_deploy.detect import Detector
    from mbv3ssd_deploy.io.progress import Progress

_CHUNK = 16


def detect_video(
    detector: Detector,
    source: VideoSource,
    *,
    runtime: str,
    conf: float | None,
    every: int,
    limit: int | None,
    target: Path | None,
    out: Output,
) -> None:
    """Look at the frames of `source`, tell each, and draw them into `target` if there is one.

    Raises:
        DatasetError: not one frame could be read.
        OutputError: the annotated copy cannot be written.
    """
    from mbv3ssd_deploy.data.images import draw_detections
    from mbv3ssd_deploy.data.video import VideoFile
    from mbv3ssd_deploy.errors import DatasetError

    names, seen = detector.spec.class_names, 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_stopping(source, out))
        file: VideoFile | None = None
        if target is not None:
            file = stack.enter_context(VideoFile(target, source.frames_per_second / every))
        progress = stack.enter_context(out.progress())
        for frame, found in _looked_at(
            detector, source, runtime=runtime, conf=conf, every=every, limit=limit
        ):
            _tell(source, frame, found, names, out)
            if file is not None:
                file.write(draw_detections(frame.pixels, found, names))
            seen += 1
            _advance(progress, source, seen, every, limit)
    if not seen and not source.is_camera:
        raise DatasetError("the video holds no frame that can be read", where=source.name)
    if source.frame_count is not None and limit is None and source.grabbed < source.frame_count:
        out.note(
            f"notice: {source.name} ends after {source.grabbed} of the {source.frame_count} frames "
            "that it announces"
        )
    out.result(f"{source.name}: {seen} frames")
    if target is not None and target.is_file():
        out.written([target])


@contextlib.contextmanager
def _stopping(source: VideoSource, out: Output) -> Iterator[None]:
    """Let Ctrl-C be the way to stop a camera; a video that is broken off stays an error."""
    try:
        yield
    except KeyboardInterrupt:
        if not source.is_camera:
            raise
        out.note(f"{source.name}: stopped")


def _looked_at(
    detector: Detector,
    source: VideoSource,
    *,
    runtime: str,
    conf: float | None,
    every: int,
    limit: int | None,
) -> Iterator[tuple[Frame, Detections]]:
    """Yield each frame with what is in it."""
    waiting: deque[Frame] = deque()

    def pictures() -> Iterator[U8]:
        for frame in source.frames(every=every, limit=limit):
            waiting.append(frame)
            yield frame.pixels

    chunk = 1 if source.is_camera else _CHUNK
    for found in detector.detect_stream(
        pictures(), runtime=runtime, score_threshold=conf, chunk=chunk
    ):
        yield waiting.popleft(), found


def _tell(
    source: VideoSource, frame: Frame, found: Detections, names: tuple[str, ...], out: Output
) -> None:
    out.json_line(
        {
            "video": source.name,
            "frame": frame.index,
            "seconds": round(frame.seconds, 6),
            "detections": json_from_detections(found, names),
        }
    )
    out.result(f"frame {frame.index} ({frame.seconds:.2f} s): {in_words(found, names)}")


def _advance(
    progress: Progress, source: VideoSource, seen: int, every: int, limit: int | None
) -> None:
    total = limit
    if source.frame_count is not None:
        total = min(-(-source.frame_count // every), limit or source.frame_count)
    if total is not None:
        progress("detect", min(seen, total), total)
