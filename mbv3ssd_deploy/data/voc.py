"""Data sets in the layout of Pascal VOC, and folders as LabelImg leaves them.

    ROOT/JPEGImages/STEM.jpg  ROOT/Annotations/STEM.xml  ROOT/ImageSets/Main/SPLIT.txt

Coordinates count pixels from 1 and include the last one (VOC2007 development kit, section 4.2):
xmin = 1, xmax = width is the whole width, so the continuous corners are x1 = xmin - 1, x2 = xmax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from mbv3ssd_deploy.data.dataset import (
    AnnotatedImage,
    AnnotatedObject,
    Box,
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
    """Read one split of one or several VOC folders, joined in the order given.

    Args:
        roots: folders in VOC layout, or with `.xml` files beside the images.
        split: which list; trainval is made of train and val where it is missing.
        class_names: by label, background first. By default those of `labels.txt` in a root, else
            every class that is found in any annotation of the roots, sorted.
        seed: of the split that is made where the folder has no lists.
        progress: told how far it is.

    Raises:
        DatasetError: no such folder, an unknown or empty split, class names that cannot be told
            apart, or nothing usable is left.
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
            f"{str(split)!r} is empty: too few images to make a split of by their names",
            where=name,
            hint="write ImageSets/Main/train.txt, val.txt and test.txt, a file name without "
            "extension a line",
        )
    names = class_names or _listed_classes(folders)
    if names is None:
        names = class_names_found(_classes_in(folders, images, progress), where=name)
    samples = list(checked_samples(images, labels_by_name(names), problems, progress))
    return dataset_from_samples(name, names, samples, problems)


def _distinct_names(roots: Sequence[Path]) -> dict[Path, str]:
    """Return the folders' own names, or whole paths where two have the same name."""
    names = [root.name for root in roots]
    return {root: root.name if names.count(root.name) == 1 else str(root) for root in roots}


def _stems_of_split(
    folder: VocFolder, split: Split, seed: int, problems: list[DatasetProblem]
) -> list[str]:
    """Return the names in the split, in the list's order; a folder without lists is split here."""
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
                reason = f"{stem} stands at {stems[stem]} too"
                problems.append(DatasetProblem(place, reason, "duplicate-image"))
            else:
                stems[stem] = place
    if not stems:
        raise DatasetError(
            "the split is empty: its list names no image",
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
    """Return an entry without a flag (1, 0, -1) behind it, its folder, and an image's extension."""
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
    """Return the images of the split that have both files, with what their annotation says."""
    step = f"reading annotations of {folder.root.name}"
    progress(step, 0, len(stems))
    found = []
    for done, stem in enumerate(stems, start=1):
        if stem in folder.twins:
            reason = f"{folder.images[stem].name} has the same name and is taken"
            problems.append(DatasetProblem(str(folder.twins[stem]), reason, "duplicate-image"))
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
    """Return what is said of an image, or None and a problem where one of the two is missing."""
    path, image = folder.annotations.get(stem), folder.images.get(stem)
    if path is None:
        reason = f"there is no {stem}.xml for it"
        place = str(image or folder.root / "JPEGImages" / f"{stem}.jpg")
        problems.append(DatasetProblem(place, reason, "missing-annotation"))
        return None
    if image is None:
        problems.append(DatasetProblem(str(path), f"there is no image {stem}", "missing-image"))
        return None
    try:
        return read_voc_annotation(path, problems)
    except FormatError as error:
        problems.append(DatasetProblem(error.where, error.message, "broken-annotation"))
        return None


def _listed_classes(folders: Sequence[VocFolder]) -> tuple[str, ...] | None:
    """Return the classes of the roots' `labels.txt`, None where there is no such file."""
    lists = {
        folder.root / CLASS_LIST: read_class_list(folder.root / CLASS_LIST)
        for folder in folders
        if (folder.root / CLASS_LIST).is_file()
    }
    if len(set(lists.values())) > 1:
        raise DatasetError(
            "the folders list different classes",
            where=", ".join(map(str, lists)),
            hint="make the lists equal, or give the class names",
        )
    return next(iter(lists.values()), None)


def _classes_in(
    folders: Sequence[VocFolder], images: Sequence[AnnotatedImage], progress: Progress
) -> dict[str, str]:
    """Return every class that any annotation names, and where; all splits get the same labels."""
    places: dict[str, str] = {}
    for image in images:
        for thing in image.objects:
            places.setdefault(thing.class_name, thing.place)
    read_already = {image.place for image in images}
    others = [
        path
        for folder in folders
        for path in folder.annotations.values()
        if str(path) not in read_already
    ]
    step = "looking for classes"
    progress(step, 0, len(others))
    for done, path in enumerate(others, start=1):
        try:
            objects = read_voc_annotation(path, []).objects
        except FormatError:  # another split's problem
            objects = ()
        for thing in objects:
            places.setdefault(thing.class_name, thing.place)
        progress(step, done, len(others))
    return places


def _no_such_split(folders: Sequence[VocFolder], split: Split) -> DatasetError:
    there = sorted({str(part) for folder in folders for part in folder.splits})
    return DatasetError(
        f"there is no split {str(split)!r}, only {', '.join(there)}",
        where=", ".join(str(folder.root) for folder in folders),
        hint=f"write ImageSets/Main/{split}.txt, one file name without extension a line",
    )


@dataclass(frozen=True, slots=True)
class VocFolder:
    """One root and its files.

    Attributes:
        root: the folder.
        images: by file name without extension.
        twins: images left out, because another one has their name with another extension.
        annotations: by file name without extension.
        lists: likewise, those of `ImageSets/Main`; empty where it came without.
        part: set where the whole folder is one part of a data set.
    """

    root: Path
    images: Mapping[str, Path]
    twins: Mapping[str, Path]
    annotations: Mapping[str, Path]
    lists: Mapping[str, Path]
    part: Split | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that its lists name, or the one that it is."""
        return (self.part,) if self.part else tuple(s for s in Split if s in self.lists)


def list_voc_folders(root: Path) -> list[VocFolder]:
    """Return the folder, or its train, val and test where each holds its own files.

    Raises:
        DatasetError: there is no such folder, or no image or no annotation in it.
    """
    parts = part_folders(root)
    if not parts or (root / "JPEGImages").is_dir():
        return [_list_folder(root)]
    return [_list_folder(path, part) for part, path in parts.items()]


def _list_folder(root: Path, part: Split | None = None) -> VocFolder:
    if not root.is_dir():
        raise DatasetError(
            "there is no such folder",
            where=str(root),
            hint="name the folder that holds JPEGImages, Annotations and ImageSets, or one with "
            "images and .xml files side by side",
        )
    image_folder, annotation_folder = root / "JPEGImages", root / "Annotations"
    images, twins = _files_by_stem(
        image_folder if image_folder.is_dir() else root, IMAGE_EXTENSIONS
    )
    annotations, _ = _files_by_stem(
        annotation_folder if annotation_folder.is_dir() else root, (".xml",)
    )
    if not images or not annotations:
        missing = "image" if not images else "annotation (.xml)"
        raise DatasetError(
            f"there is no {missing} in JPEGImages and Annotations, nor in the folder itself",
            where=str(root),
            hint="other layouts are read as coco:ANNOTATIONS.json,IMAGES and yolo:data.yaml",
        )
    lists, _ = _files_by_stem(root / "ImageSets" / "Main", (".txt",))
    return VocFolder(root, images, twins, annotations, lists, part)


def _files_by_stem(
    folder: Path, extensions: tuple[str, ...]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the first file of each name, and a second one where there is any."""
    first: dict[str, Path] = {}
    second: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in extensions and not path.name.startswith("."):
            (second if path.stem in first else first).setdefault(path.stem, path)
    return first, second


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """What an annotation file says: the objects, and the image's size where it gives one."""

    objects: tuple[AnnotatedObject, ...]
    size: tuple[int, int] | None


def read_voc_annotation(path: Path, problems: list[DatasetProblem]) -> VocAnnotation:
    """Read one annotation file; parts of objects (a person's head) are not objects here.

    Args:
        path: the `.xml` file.
        problems: gets a line for each object that has no name or no complete box.

    Raises:
        FormatError: the file cannot be read, is no XML, or is no annotation.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        root = parse_xml(data)
    except FormatError as error:
        line = error.where.removeprefix("line ")
        raise FormatError(error.message, where=f"{path}:{line}") from None
    if root.tag != "annotation":
        raise FormatError(f"the root is <{root.tag}>, not <annotation>", where=f"{path}:1")
    objects = []
    for element in root.children:
        if element.tag == "object":
            thing = _object_from(element, path, problems)
            if thing is not None:
                objects.append(thing)
    return VocAnnotation(tuple(objects), _size_from(root))


def _size_from(root: XmlElement) -> tuple[int, int] | None:
    size = root.child("size")
    if size is None:
        return None
    try:
        return int(float(size.text_of("width"))), int(float(size.text_of("height")))
    except (ValueError, OverflowError):  # left empty by some tools: the image knows better
        return None


def _object_from(
    element: XmlElement, path: Path, problems: list[DatasetProblem]
) -> AnnotatedObject | None:
    place = f"{path}:{element.line}"
    name = element.text_of("name")
    if not name:
        problems.append(DatasetProblem(place, "an object without a name", "broken-object"))
        return None
    _check_blanks(element, name, place, problems)
    box_element = element.child("bndbox")
    if box_element is None:
        problems.append(DatasetProblem(place, f"{name} has no <bndbox>", "broken-object"))
        return None
    place = f"{path}:{box_element.line}"
    try:
        box = _box_from(box_element)
    except ValueError:
        reason = f"{name}: <bndbox> lacks xmin, ymin, xmax or ymax, or one is no number"
        problems.append(DatasetProblem(place, reason, "broken-object"))
        return None
    return AnnotatedObject(name, box, place, difficult=element.text_of("difficult") == "1")


def _check_blanks(
    element: XmlElement, name: str, place: str, problems: list[DatasetProblem]
) -> None:
    """Count a name with blanks around it; line breaks come from indentation and mean nothing."""
    written = element.child("name")
    if written is not None and written.text != name and "\n" not in written.text:
        reason = f"{written.text!r} is read as {name!r}"
        problems.append(DatasetProblem(place, reason, "blank-in-class"))


def _box_from(element: XmlElement) -> Box:
    """Return the continuous corners of inclusive ones; ValueError where a number is missing."""
    xmin, ymin, xmax, ymax = (
        float(element.text_of(name)) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    # one pixel is as thin as this convention can say; whoever wrote xmin = xmax meant nothing
    x1 = xmin if xmin == xmax else xmin - 1
    y1 = ymin if ymin == ymax else ymin - 1
    # an inverted box must stay one: 10..9 would otherwise become 9..9
    return (xmin if xmin > xmax else x1, ymin if ymin > ymax else y1, xmax, ymax)


@dataclass(slots=True)
class XmlElement:
    """One element: its tag, the line it starts in, its own text, and the elements inside it."""

    tag: str
    line: int
    text: str = ""
    children: list[XmlElement] = field(default_factory=list)

    def child(self, tag: str) -> XmlElement | None:
        """Return the first element inside this one that has the tag, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """Return the text of the first element inside that has the tag, stripped; "" if none."""
        child = self.child(tag)
        return child.text.strip() if child else ""


def parse_xml(data: bytes) -> XmlElement:
    """Return the root element of the document.

    Raises:
        FormatError: it is no XML, or it has a DOCTYPE; `where` is "line N".
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = XmlElement("", 0)
    stack = [top]

    def start(tag: str, _attributes: dict[str, str]) -> None:
        element = XmlElement(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(characters: str) -> None:
        stack[-1].text += characters

    def doctype(*_facts: object) -> None:
        raise FormatError(
            "the file has a DOCTYPE, which no annotation needs",
            where=f"line {parser.CurrentLineNumber}",
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)  # noqa: FBT003 -- expat's own signature
    except expat.ExpatError as error:
        raise FormatError(
            f"the file is no XML: {expat.ErrorString(error.code)}", where=f"line {error.lineno}"
        ) from None
    return top.children[0]
