"""Data sets in the layout of Pascal VOC, and folders as LabelImg leaves them.

    ROOT/JPEGImages/STEM.jpg  ROOT/Annotations/STEM.xml  ROOT/ImageSets/Main/SPLIT.txt

Coordinates count pixels from 1 and include the last one (VOC2007 development kit, section 4.2):
xmin = 1, xmax = width is the whole width, so the continuous corners are x1 = xmin - 1, x2 = xmax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.data.dataset import (
    AnnotatedImage,
    Dataset,
    DatasetProblem,
    Split,
    checked_samples,
    class_names_found,
    dataset_from_samples,
    labels_by_name,
    read_class_list,
)
from mbv3ssd_deploy.data.hash_split import SPLIT_SEED, belongs_to, made_split, part_folders
from mbv3ssd_deploy.data.images import IMAGE_EXTENSIONS
from mbv3ssd_deploy.data.voc_xml import VocAnnotation, read_voc_annotation
from mbv3ssd_deploy.errors import DatasetError, FormatError
from mbv3ssd_deploy.io.progress import Progress, silent

CLASS_LIST = "labels.txt"

_LINE_WITH_FLAG = re.compile(r"(\S.*?)\s+(?:-1|0|1)")


def read_voc(
    roots: Sequence[Path],
    split: Split,
    *,
    class_names: tuple[str, ...] | None = None,
    seed: int = SPLIT_SEED,
    progress: Progress = silent,
) -> Dataset:
    """Read one split of one or more VOC folders, joined in the given order.

    Args:
        roots: folders in VOC layout, or with `.xml` files beside the images.
        split: which list; if trainval is missing, train and val.
        class_names: by label, background first. By default those of `labels.txt` in a root, else
            the classes of all annotations, sorted.
        seed: of the split that is made for a folder without lists.
        progress: called after every file.

    Raises:
        DatasetError: no such folder, an unknown or empty split, duplicate class names, or no usable
            image.
    """
    name = "voc:" + ",".join(map(str, roots))
    folders = [folder for root in roots for folder in list_voc_folders(root)]
    names_of_roots = _distinct_names([folder.root for folder in folders])
    problems: list[DatasetProblem] = []
    images: list[AnnotatedImage] = []
    for folder in folders:
        prefix = f"{names_of_roots[folder.root]}/" if len(folders) > 1 else ""
        stems = _stems_of_split(folder, split, seed, problems)
        images += _annotated(folder, stems, prefix, problems, progress)
    if not images and not any(folder.splits == () for folder in folders):
        raise _no_such_split(folders, split)
    if not images and {problem.kind for problem in problems} == {"split-made"}:
        raise DatasetError(
            f"{str(split)!r} is empty: there are too few images to make a split",
            where=name,
            hint="write ImageSets/Main/train.txt, val.txt and test.txt, one file name without "
            "extension per line",
        )
    names = class_names or _listed_classes(folders)
    if names is None:
        names = class_names_found(_classes_in(folders, images, progress), where=name)
    samples = list(checked_samples(images, labels_by_name(names), problems, progress))
    return dataset_from_samples(name, names, samples, problems)


def _distinct_names(roots: Sequence[Path]) -> dict[Path, str]:
    """Return the name of each folder, or its path if another has the same name."""
    names = [root.name for root in roots]
    return {root: root.name if names.count(root.name) == 1 else str(root) for root in roots}


def _stems_of_split(
    folder: VocFolder, split: Split, seed: int, problems: list[DatasetProblem]
) -> list[str]:
    """Return the names in the split, in order; make a split for a folder without lists."""
    every = sorted({*folder.images, *folder.annotations})
    if folder.part is not None:
        return every if belongs_to(folder.part, split) else []
    if not folder.splits:
        reason = (
            "no ImageSets/Main: the hash of each file name decides, "
            f"about 70 % train, 15 % val, 15 % test (seed {seed})"
        )
        problems.append(DatasetProblem(str(folder.root), reason, "split-made"))
        return [stem for stem in every if belongs_to(made_split(stem, seed), split)]
    parts = [split] if split in folder.lists else []
    if not parts and split is Split.TRAINVAL:
        parts = [part for part in (Split.TRAIN, Split.VAL) if part in folder.lists]
    if not parts:
        reason = f"no ImageSets/Main/{split}.txt"
        problems.append(DatasetProblem(str(folder.root), reason, "missing-split"))
        return []
    known = folder.images.keys() | folder.annotations.keys()
    stems: dict[str, str] = {}
    for part in parts:
        path = folder.lists[part]
        for place, stem in _lines_of_list(path, known):
            if stem in stems:
                reason = f"{stem} is also at {stems[stem]}"
                problems.append(DatasetProblem(place, reason, "duplicate-image"))
            else:
                stems[stem] = place
    if not stems:
        raise DatasetError(
            "the split is empty: its list has no image",
            where=", ".join(str(folder.lists[part]) for part in parts),
        )
    return list(stems)


def _lines_of_list(path: Path, known: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield place and stem for each line that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the list cannot be read: {error}", where=str(path)) from error
    for number, line in enumerate(lines, start=1):
        stem = line.strip()
        if stem not in known:
            stem = _bare_stem(stem)
        if stem:
            yield f"{path}:{number}", stem


def _bare_stem(entry: str) -> str:
    """Return an entry without a flag (1, 0, -1), its folder and an image's extension."""
    flagged = _LINE_WITH_FLAG.fullmatch(entry)
    path = Path(flagged.group(1) if flagged else entry)
    return path.stem if path.suffix.lower() in IMAGE_EXTENSIONS else path.name


def _annotated(
    folder: VocFolder,
    stems: Sequence[str],
    prefix: str,
    problems: list[DatasetProblem],
    progress: Progress,
) -> list[AnnotatedImage]:
    """Return the images of the split that have both files, with their annotations."""
    step = f"reading annotations of {folder.root.name}"
    progress(step, 0, len(stems))
    found = []
    for done, stem in enumerate(stems, start=1):
        if stem in folder.duplicates:
            reason = f"{folder.images[stem].name} has the same name and is used"
            problems.append(DatasetProblem(str(folder.duplicates[stem]), reason, "duplicate-image"))
        annotation = _annotation_of(folder, stem, problems)
        if annotation is not None:
            image = folder.images[stem]
            place = str(folder.annotations[stem])
            found.append(
                AnnotatedImage(prefix + stem, image, place, annotation.objects, annotation.size)
            )
        progress(step, done, len(stems))
    return found


def _annotation_of(
    folder: VocFolder, stem: str, problems: list[DatasetProblem]
) -> VocAnnotation | None:
    """Return the annotation of an image, or None and a problem if a file is missing."""
    path, image = folder.annotations.get(stem), folder.images.get(stem)
    if path is None:
        reason = f"{stem}.xml is missing"
        place = str(image or folder.root / "JPEGImages" / f"{stem}.jpg")
        problems.append(DatasetProblem(place, reason, "missing-annotation"))
        return None
    if image is None:
        problems.append(DatasetProblem(str(path), f"the image {stem} is missing", "missing-image"))
        return None
    try:
        return read_voc_annotation(path, problems)
    except FormatError as error:
        problems.append(DatasetProblem(error.where, error.message, "broken-annotation"))
        return None


def _listed_classes(folders: Sequence[VocFolder]) -> tuple[str, ...] | None:
    """Return the classes in the folders' `labels.txt`; None without such a file."""
    lists = {
        folder.root / CLASS_LIST: read_class_list(folder.root / CLASS_LIST)
        for folder in folders
        if (folder.root / CLASS_LIST).is_file()
    }
    if len(set(lists.values())) > 1:
        raise DatasetError(
            "the folders list different classes",
            where=", ".join(map(str, lists)),
            hint="make the lists equal, or pass the class names",
        )
    return next(iter(lists.values()), None)


def _classes_in(
    folders: Sequence[VocFolder], images: Sequence[AnnotatedImage], progress: Progress
) -> dict[str, str]:
    """Return the classes of all annotations with their places, so that all splits share labels."""
    places: dict[str, str] = {}
    for image in images:
        for obj in image.objects:
            places.setdefault(obj.class_name, obj.place)
    known = {image.place for image in images}
    others = [
        path for folder in folders for path in folder.annotations.values() if str(path) not in known
    ]
    step = "looking for classes"
    progress(step, 0, len(others))
    for done, path in enumerate(others, start=1):
        try:
            objects = read_voc_annotation(path, []).objects
        except FormatError:  # of another split
            objects = ()
        for obj in objects:
            places.setdefault(obj.class_name, obj.place)
        progress(step, done, len(others))
    return places


def _no_such_split(folders: Sequence[VocFolder], split: Split) -> DatasetError:
    there = sorted({str(part) for folder in folders for part in folder.splits})
    return DatasetError(
        f"no split {str(split)!r}, only {', '.join(there)}",
        where=", ".join(str(folder.root) for folder in folders),
        hint=f"write ImageSets/Main/{split}.txt, one file name without extension per line",
    )


@dataclass(frozen=True, slots=True)
class VocFolder:
    """One root and its files.

    Attributes:
        root: the folder.
        images: by file name without extension.
        duplicates: images left out because another has their name with another extension.
        annotations: by file name without extension.
        lists: those of `ImageSets/Main`, by file name without extension.
        part: the split, if the whole folder is one.
    """

    root: Path
    images: Mapping[str, Path]
    duplicates: Mapping[str, Path]
    annotations: Mapping[str, Path]
    lists: Mapping[str, Path]
    part: Split | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has."""
        return (self.part,) if self.part else tuple(s for s in Split if s in self.lists)


def list_voc_folders(root: Path) -> list[VocFolder]:
    """Return the folder, or its folders train, val and test if it has these.

    Raises:
        DatasetError: no such folder, or one without images or annotations.
    """
    parts = part_folders(root)
    if not parts or (root / "JPEGImages").is_dir():
        return [_list_folder(root)]
    return [_list_folder(path, part) for part, path in parts.items()]


def _list_folder(root: Path, part: Split | None = None) -> VocFolder:
    if not root.is_dir():
        raise DatasetError(
            "no such folder",
            where=str(root),
            hint="give the folder with JPEGImages, Annotations and ImageSets, or one with "
            "images and .xml files side by side",
        )
    image_folder, annotation_folder = root / "JPEGImages", root / "Annotations"
    images, duplicates = _files_by_stem(
        image_folder if image_folder.is_dir() else root, IMAGE_EXTENSIONS
    )
    annotations, _ = _files_by_stem(
        annotation_folder if annotation_folder.is_dir() else root, (".xml",)
    )
    if not images or not annotations:
        missing = "image" if not images else "annotation (.xml)"
        raise DatasetError(
            f"no {missing} in JPEGImages and Annotations, nor in the folder itself",
            where=str(root),
            hint="other layouts are read as coco:ANNOTATIONS.json,IMAGES and yolo:data.yaml",
        )
    lists, _ = _files_by_stem(root / "ImageSets" / "Main", (".txt",))
    return VocFolder(root, images, duplicates, annotations, lists, part)


def _files_by_stem(
    folder: Path, extensions: tuple[str, ...]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the first file of each name, and the second if there is one."""
    first: dict[str, Path] = {}
    second: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in extensions and not path.name.startswith("."):
            (second if path.stem in first else first).setdefault(path.stem, path)
    return first, second
