"""`detect`: a bundle looks at images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.talk import Talk, talking

if TYPE_CHECKING:
    from mbv3ssd_deploy.core.detections import Detections


@click.command(name="detect", short_help="Run a bundle on images and draw what it finds.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    type=click.Choice(["ncnn", "onnx", "torch"]),
    default="ncnn",
    show_default=True,
    help="What computes.",
)
@click.option("--conf", type=click.FloatRange(0.0, 1.0), help="Show only scores above this.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("detections"),
    show_default=True,
    help="Where the drawn copies go.",
)
@talking
def command(
    *,
    bundle: Path,
    images: tuple[Path, ...],
    runtime: str,
    conf: float | None,
    folder: Path,
    talk: Talk,
) -> None:
    """Run BUNDLE on IMAGES (files or folders) and draw what it finds on copies.

    PyTorch and ONNX Runtime follow the family's own rules; ncnn follows the thresholds that
    `to-ncnn` gave its DetectionOutput. --conf can only raise these.

    With --json nothing is drawn: one object an image, boxes as x1, y1, x2, y2 in pixels of the
    image, label 0 is the background and never shown, scores within 0..1.

    \b
        mbv3ssd-deploy detect deploy photos/ --conf 0.5
        mbv3ssd-deploy detect deploy photo.jpg --runtime torch --json
    """
    from mbv3ssd_deploy.data.images import draw_detections, list_images, read_images, write_image
    from mbv3ssd_deploy.detect import read_bundle
    from mbv3ssd_deploy.errors import DatasetError

    detector = read_bundle(bundle)
    found = read_images([path for given in images for path in list_images(given)])
    for path, reason in found.skipped:
        talk.note(f"skipped {path}: {reason}")
    if not found.images:
        raise DatasetError("none of the images can be read", hint="see the reasons above")
    with talk.progress() as progress:
        detections = detector.detect_all(
            [image.pixels for image in found.images],
            runtime=runtime,
            score_threshold=conf,
            progress=progress,
        )
    names = detector.spec.class_names
    results = [
        _json_from_detections(image.path, one, names)
        for image, one in zip(found.images, detections, strict=True)
    ]
    talk.json(results)
    if talk.as_json:
        return
    targets = _targets(folder, [image.path for image in found.images])
    for image, one, target in zip(found.images, detections, targets, strict=True):
        write_image(target, draw_detections(image.pixels, one, names))
        talk.result(f"{image.path}: {_in_words(one, names)}  -> {target}")


def _targets(folder: Path, paths: list[Path]) -> list[Path]:
    """Where the drawn copies go: a name each, and never over one of the images.

    Raises:
        OutputError: a copy would replace an image that was given.
    """
    from mbv3ssd_deploy.errors import OutputError

    seen: Counter[str] = Counter()
    targets = []
    for path in paths:
        seen[path.stem] += 1
        number = "" if seen[path.stem] == 1 else f"-{seen[path.stem]}"
        targets.append(folder / f"{path.stem}{number}.png")
    originals = {path.resolve() for path in paths}
    for target in targets:
        if target.resolve() in originals:
            raise OutputError(
                "the drawn copy would replace the image itself",
                where=str(target),
                hint="choose another folder with -o",
            )
    return targets


def _json_from_detections(
    path: Path, detections: Detections, names: tuple[str, ...]
) -> dict[str, Any]:
    rows = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
    return {
        "image": str(path),
        "detections": [
            {"box": box, "score": score, "label": label, "name": names[label]}
            for box, score, label in rows
        ],
    }


def _in_words(detections: Detections, names: tuple[str, ...]) -> str:
    if not len(detections):
        return "nothing"
    counts = {
        label: int((detections.labels == label).sum()) for label in set(detections.labels.tolist())
    }
    best = f"best {detections.scores.max():.2f}"
    return ", ".join(f"{counts[k]} {names[k]}" for k in sorted(counts)) + f" ({best})"
