"""A data set of rendered scenes in VOC's layout: as large as wanted, the same for the same seed.

Scene k is a function of seed, size and style alone, and its part of the split one of k alone: a
larger set begins with the smaller one, and no test image ever becomes a training image.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.loader import start_worker
from mbv3ssd_deploy.data.voc import CLASS_LIST
from mbv3ssd_deploy.errors import OutputError
from mbv3ssd_deploy.io.files import publish_files
from mbv3ssd_deploy.io.progress import Progress, silent
from renderer.scenes import Scene, render_scene
from renderer.styles import STYLES

RECIPE = "scenes.json"
"""What the set was made of; it marks a folder as ours."""

# Of ten scenes seven are for training; any three in a row from the start serve all parts.
_PARTS = tuple(
    {"r": Split.TRAIN, "v": Split.VAL, "t": Split.TEST}[letter] for letter in "rvtrrtrrrr"
)
_JPEG_QUALITY = 92
_CHUNK = 4


@dataclass(frozen=True, slots=True)
class SceneSetSpec:
    """What a set of scenes is made of.

    Attributes:
        count: how many scenes, at least 3, so that no part of the split is empty.
        seed: which series.
        width: in pixels, at least 64.
        height: in pixels, at least 64.
        style: a name of `data.scene_styles.STYLES`.
    """

    count: int
    seed: int = 0
    width: int = 480
    height: int = 360
    style: str = "crowded"

    def __post_init__(self) -> None:
        if self.count < 3 or min(self.width, self.height) < 64 or self.seed < 0:
            raise ValueError("a set needs 3 scenes, 64 x 64 pixels and a seed of 0 or more")
        if self.style not in STYLES:
            raise ValueError(f"there is no style {self.style!r}, only {', '.join(STYLES)}")


@dataclass(frozen=True, slots=True)
class SceneSetReport:
    """What was written.

    Attributes:
        folder: where.
        class_names: by label, background first.
        images: how many by split.
        objects: how many by class name.
        size_bytes: of all images.
    """

    folder: str
    class_names: tuple[str, ...]
    images: dict[str, int]
    objects: dict[str, int]
    size_bytes: int


def write_voc_scenes(
    folder: Path, spec: SceneSetSpec, *, workers: int | None = None, progress: Progress = silent
) -> SceneSetReport:
    """Write a data set of scenes in VOC layout; same spec, same files.

    The lists of `ImageSets/Main` are written last: without them the set is not whole, and the same
    call makes it so.

    Args:
        folder: a new or empty one, or one with a set of the same spec but for the count.
        spec: what to write.
        workers: so many processes render; by default as many as there are cores for us. They are
            spawned, so a script that calls this needs `if __name__ == "__main__":`.
        progress: told after each scene.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    _claim_folder(folder, spec)
    names = STYLES[spec.style].class_names
    objects = dict.fromkeys(names[1:], 0)
    size_bytes, step = 0, "rendering scenes"
    progress(step, 0, spec.count)
    for done, (labels, size) in enumerate(_written(folder, spec, workers), start=1):
        size_bytes += size
        for label in labels:
            objects[names[label]] += 1
        progress(step, done, spec.count)
    lists = _lists(spec.count)
    publish_files(
        folder / "ImageSets" / "Main",
        {f"{split}.txt": _lines(stems) for split, stems in lists.items()},
    )
    images = {str(split): len(stems) for split, stems in lists.items()}
    return SceneSetReport(str(folder), names, images, objects, size_bytes)


def _claim_folder(folder: Path, spec: SceneSetSpec) -> None:
    """Make the folders and write down the recipe, unless something else lies there."""
    recipe = {
        "seed": spec.seed,
        "width": spec.width,
        "height": spec.height,
        "style": spec.style,
        "format": 1,
    }
    try:
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        theirs = json.loads((folder / RECIPE).read_bytes()) if RECIPE in found else None
        if found and theirs != recipe:
            what = "another set of scenes" if theirs else "other files"
            raise OutputError(
                f"the folder holds {what}", where=str(folder), hint="choose a new folder"
            )
        for name in ("JPEGImages", "Annotations"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(folder)) from error
    except ValueError:
        raise OutputError(
            f"{RECIPE} cannot be read", where=str(folder), hint="choose a new folder"
        ) from None
    classes = STYLES[spec.style].class_names[1:]
    text = json.dumps(recipe, indent=1) + "\n"
    publish_files(folder, {CLASS_LIST: _lines(classes), RECIPE: text.encode()})


def _written(
    folder: Path, spec: SceneSetSpec, workers: int | None
) -> Iterator[tuple[list[int], int]]:
    """Render and write the scenes one by one; yield the labels and the image's size in bytes."""
    write = functools.partial(_write_scene, folder, spec)
    wanted = min(workers or len(os.sched_getaffinity(0)), -(-spec.count // _CHUNK))
    if wanted <= 1:
        yield from map(write, range(spec.count))
        return
    # a fork would copy OpenCV's threads in whatever state they are
    pool = ProcessPoolExecutor(wanted, get_context("spawn"), initializer=_start_renderer)
    try:
        yield from pool.map(write, range(spec.count), chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_renderer() -> None:
    start_worker()
    # Ctrl-C reaches every process of a terminal; the parent stops them
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_scene(folder: Path, spec: SceneSetSpec, index: int) -> tuple[list[int], int]:
    style = STYLES[spec.style]
    scene = render_scene(index, seed=spec.seed, width=spec.width, height=spec.height, style=style)
    image_bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    stem = _stem(index)
    try:
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(jpeg.tobytes())
        text = annotation_from_scene(scene, stem, style.class_names)
        (folder / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(folder)) from error
    return scene.labels.tolist(), jpeg.size


def annotation_from_scene(scene: Scene, stem: str, class_names: Sequence[str]) -> str:
    """Return the VOC annotation (XML) of a scene: corners count from 1 and are inclusive."""
    height, width = scene.image.shape[:2]
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{stem}.jpg</filename>",
        "  <source><database>rendered by mbv3ssd-deploy scenes</database></source>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for label, (x1, y1, x2, y2) in zip(scene.labels, scene.boxes.astype(int), strict=True):
        at_edge = x1 == 0 or y1 == 0 or x2 == width or y2 == height
        corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
        lines += [
            "  <object>",
            f"    <name>{class_names[label]}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{int(at_edge)}</truncated>",
            "    <difficult>0</difficult>",
            f"    <bndbox>{box}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _lists(count: int) -> dict[Split, list[str]]:
    parts = [_PARTS[index % len(_PARTS)] for index in range(count)]
    lists = {
        part: [_stem(index) for index in range(count) if parts[index] is part]
        for part in (Split.TRAIN, Split.VAL, Split.TEST)
    }
    lists[Split.TRAINVAL] = sorted(lists[Split.TRAIN] + lists[Split.VAL])
    return lists


def _stem(index: int) -> str:
    return f"scene_{index:06d}"


def _lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
