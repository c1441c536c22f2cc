"""`detect` on videos and cameras: a line per frame, and an annotated copy."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbv3ssd_deploy.cli.output import Output

if TYPE_CHECKING:
    from mbv3ssd_deploy.core.arrays import U8
    from mbv3ssd_deploy.core.detections import Detections
    from mbv3ssd_deploy.data.video import Frame, VideoSource
    from mbv3ssd_deploy.detect import Detector
    from mbv3ssd_deploy.io.progress import Progress


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
    """Print the detections in each frame of `source`, and draw them into `target` if there is one.

    Raises:
        DatasetError: no frame could be read.
        OutputError: the annotated copy cannot be written.
    """
    from mbv3ssd_deploy.data.images import draw_detections
    from mbv3ssd_deploy.data.video import VideoFile
    from mbv3ssd_deploy.errors import DatasetError

    names, count = detector.spec.class_names, 0
    waiting: deque[Frame] = deque()

    def pictures() -> Iterator[U8]:
        for frame in source.frames(every=every, limit=limit):
            waiting.append(frame)
            yield frame.pixels

    stream = detector.detect_stream(pictures(), runtime=runtime, score_threshold=conf)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interrupt_stops_camera(source, out))
        file: VideoFile | None = None
        if target is not None:
            file = stack.enter_context(VideoFile(target, source.frames_per_second / every))
        progress = stack.enter_context(out.progress())
        for count, found in enumerate(stream, 1):
            frame = waiting.popleft()
            _show(source, frame, found, names, out)
            if file is not None:
                file.write(draw_detections(frame.pixels, found, names))
            _advance(progress, source, count, every, limit)
    if not count and not source.is_camera:
        raise DatasetError("no frame of the video can be read", where=source.name)
    if source.frame_count is not None and limit is None and source.grabbed < source.frame_count:
        out.note(
            f"notice: {source.name} ends after {source.grabbed} of the {source.frame_count} frames "
            "that its header announces"
        )
    out.result(f"{source.name}: {count} frames")
    if target is not None and target.is_file():
        out.written([target])


def json_from_detections(detections: Detections, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the detections of one image as JSON."""
    rows = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
    return [
        {"box": box, "score": score, "label": label, "name": names[label]}
        for box, score, label in rows
    ]


def summary_of(detections: Detections, names: tuple[str, ...]) -> str:
    """Return the detections of one image in a few words: "2 dog, 1 cat (best 0.93)"."""
    if not len(detections):
        return "nothing"
    counts = {
        label: int((detections.labels == label).sum()) for label in set(detections.labels.tolist())
    }
    best = f"best {detections.scores.max():.2f}"
    return ", ".join(f"{counts[k]} {names[k]}" for k in sorted(counts)) + f" ({best})"


@contextlib.contextmanager
def _interrupt_stops_camera(source: VideoSource, out: Output) -> Iterator[None]:
    """Let Ctrl-C end a camera normally; for a video it remains an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        if not source.is_camera:
            raise
        out.note(f"{source.name}: stopped")


def _show(
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
    out.result(f"frame {frame.index} ({frame.seconds:.2f} s): {summary_of(found, names)}")


def _advance(
    progress: Progress, source: VideoSource, count: int, every: int, limit: int | None
) -> None:
    total = limit
    if source.frame_count is not None:
        total = min(-(-source.frame_count // every), limit or source.frame_count)
    if total is not None:
        progress("detect", min(count, total), total)
