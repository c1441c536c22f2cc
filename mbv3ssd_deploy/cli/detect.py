"""`detect`: detections in images, in a video or from a camera, and annotated copies."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.output import Output, output_options

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


@click.command(name="detect", short_help="Run a bundle on images, videos or a camera.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    type=click.Choice(["ncnn", "onnx", "torch"]),
    default="ncnn",
    show_default=True,
    help="The runtime.",
)
@click.option("--conf", type=click.FloatRange(0.0, 1.0), help="Drop scores at or below this.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("detections"),
    show_default=True,
    help="Folder for the annotated copies of images.",
)
@click.option("--camera", type=click.IntRange(min=0), help="Read camera N, counted from 0.")
@click.option(
    "--every", type=click.IntRange(min=1), help="Use every Nth frame of a video or camera."
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after N images or frames.")
@click.option(
    "--video-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an annotated copy of a video or camera to this MP4 file.",
)
@output_options
def command(
    *,
    bundle: Path,
    images: tuple[Path, ...],
    runtime: str,
    conf: float | None,
    folder: Path,
    camera: int | None,
    every: int | None,
    limit: int | None,
    video_out: Path | None,
    out: Output,
) -> None:
    """Run BUNDLE on IMAGES (files or folders) and draw the detections on copies.

    A video file instead of images, or --camera, is processed frame by frame. Ctrl-C stops a
    camera; what was written until then is kept.

    PyTorch and ONNX Runtime decode by the family's rules, ncnn by the thresholds that `to-ncnn`
    gave its DetectionOutput layer. --conf can only raise these.

    --json draws nothing: it prints a list with one object per image or, for videos, one object
    per line and frame. Boxes are x1, y1, x2, y2 in pixels of the image, scores are within 0..1,
    and label 0 is the background, which is never listed.

    \b
        mbv3ssd-deploy detect deploy photos/ --conf 0.5
        mbv3ssd-deploy detect deploy photo.jpg --runtime torch --json
        mbv3ssd-deploy detect deploy film.mp4 --every 5 --video-out found.mp4
        mbv3ssd-deploy detect deploy --camera 0 --json
    """
    from mbv3ssd_deploy.data.video import is_video, opened_camera, opened_video
    from mbv3ssd_deploy.detect import open_detector

    is_moving = camera is not None or (len(images) == 1 and is_video(images[0]))
    _check_flags(images, camera=camera, is_moving=is_moving, every=every, video_out=video_out)
    detector = open_detector(bundle)
    if not is_moving:
        _detect_images(
            detector, images, runtime=runtime, conf=conf, limit=limit, folder=folder, out=out
        )
        return
    opened = opened_video(images[0]) if camera is None else opened_camera(camera)
    with opened as source:
        detect_video(
            detector,
            source,
            runtime=runtime,
            conf=conf,
            every=every or 1,
            limit=limit,
            target=video_out,
            out=out,
        )


def _check_flags(
    images: tuple[Path, ...],
    *,
    camera: int | None,
    is_moving: bool,
    every: int | None,
    video_out: Path | None,
) -> None:
    from mbv3ssd_deploy.data.video import is_video

    if camera is not None and images:
        raise click.UsageError("give either IMAGES or --camera, not both")
    if camera is None and not images:
        raise click.UsageError("Missing argument 'IMAGES...', or --camera N")
    if not is_moving and any(map(is_video, images)):
        raise click.UsageError("give one video at a time, without images")
    if not is_moving and (every is not None or video_out is not None):
        raise click.UsageError("--every and --video-out are for videos and cameras")
    if video_out is not None and images and video_out.resolve() == images[0].resolve():
        raise click.UsageError("--video-out would overwrite the input video")


def _detect_images(
    detector: Detector,
    given: tuple[Path, ...],
    *,
    runtime: str,
    conf: float | None,
    limit: int | None,
    folder: Path,
    out: Output,
) -> None:
    from mbv3ssd_deploy.data.images import draw_detections, list_images, read_images, write_image
    from mbv3ssd_deploy.errors import DatasetError

    found = read_images([path for one in given for path in list_images(one)][:limit])
    for path, reason in found.skipped:
        out.note(f"skipped {path}: {reason}")
    if not found.images:
        raise DatasetError("none of the images could be read", hint="see the reasons above")
    with out.progress() as progress:
        detections = detector.detect_all(
            [image.pixels for image in found.images],
            runtime=runtime,
            score_threshold=conf,
            progress=progress,
        )
    names = detector.spec.class_names
    results = [
        {"image": str(image.path), "detections": json_from_detections(one, names)}
        for image, one in zip(found.images, detections, strict=True)
    ]
    out.json(results)
    if out.as_json:
        return
    targets = _targets(folder, [image.path for image in found.images])
    for image, one, target in zip(found.images, detections, targets, strict=True):
        write_image(target, draw_detections(image.pixels, one, names))
        out.result(f"{image.path}: {summary_of(one, names)}  -> {target}")


def _targets(folder: Path, paths: list[Path]) -> list[Path]:
    """Return a distinct file for each annotated copy.

    Raises:
        OutputError: a copy would overwrite an input image.
    """
    from mbv3ssd_deploy.errors import OutputError

    used: Counter[str] = Counter()
    targets = []
    for path in paths:
        used[path.stem] += 1
        number = "" if used[path.stem] == 1 else f"-{used[path.stem]}"
        targets.append(folder / f"{path.stem}{number}.png")
    originals = {path.resolve() for path in paths}
    for target in targets:
        if target.resolve() in originals:
            raise OutputError(
                "the annotated copy would overwrite the input image",
                where=str(target),
                hint="choose another folder with -o",
            )
    return targets
