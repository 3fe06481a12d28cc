"""Market-1501, VeRi and others of their layout: identity and camera in the file name, queries in a folder."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from rankproof.data.image_list import QUERY, ImageList, ListedImage
from rankproof.data.tree import Tree
from rankproof.errors import RankproofError

LAYOUTS = {
    "Market-1501 layout": {"bounding_box_train": "train", "bounding_box_test": "test", "query": QUERY},
    "VeRi layout": {"image_train": "train", "image_test": "test", "image_query": QUERY},
}
NAME = re.compile(r"(-1|\d{1,9})_c(\d{1,9})(?!\d)")  # identity and camera of 0002_c1s1_000451_03.jpg
JUNK, DISTRACTOR = -1, 0


def is_market(top: Tree) -> bool:
    """Whether a folder has such a layout: one of its folders has a name that only they use."""
    return _layout(top) is not None


def _layout(top: Tree) -> str | None:
    """The name of the layout, if it is one."""
    for layout, split_of in LAYOUTS.items():
        if any(top.folder(name) is not None for name in split_of if name != QUERY):
            return layout
    return None


def list_market(top: Tree, name: str, read: Callable[[str], bytes]) -> ImageList:
    """All images but junk; each distractor is a class of its own, as it is nobody's match.

    Args:
        name: short name of the data set.
        read: returns the bytes of one of the files.
    """
    kind = _layout(top) or next(iter(LAYOUTS))
    split_of = LAYOUTS[kind]
    needed = [folder for folder, split in split_of.items() if split != "train"]
    if missing := [folder for folder in needed if top.folder(folder) is None]:
        raise RankproofError(f"{top.where}: has no folder {missing[0]}; fetch the data set again")
    images: list[ListedImage] = []
    classes: dict[str, str] = {}
    distractors: dict[str, str] = {}
    junk = 0
    for folder, split in split_of.items():
        tree = top.folder(folder)
        for file in [] if tree is None else tree.only_images():
            person, camera = _identity(top, file)
            if person == JUNK:
                junk += 1
                continue
            key = file if person == DISTRACTOR else str(person)
            names, text = (distractors, "distractor") if person == DISTRACTOR else (classes, f"{person:04}")
            names[key] = text
            images.append(ListedImage(file=file, key=key, given=split, camera=camera))
    queries = sum(image.given == QUERY for image in images)
    remarks = [
        f"{queries} queries are searched for in it, where images of the query's own identity and camera do "
        f"not count"
    ]
    if distractors:
        remarks.append(f"{len(distractors)} distractors are nobody's match, each a class of its own")
    if junk:
        remarks.append(f"{junk} junk images left out")
    return ImageList(
        name=name,
        kind=kind,
        images=tuple(images),
        classes={key: classes[key] for key in sorted(classes, key=int)} | distractors,
        read=read,
        remarks=tuple(remarks),
    )


def _identity(top: Tree, file: str) -> tuple[int, int]:
    """Person and camera in a file name."""
    if (match := NAME.match(PurePosixPath(file).name)) is None:
        raise RankproofError(
            f"{top.where}/{file}: its name must begin with identity and camera, as 0002_c1s1_000451_03.jpg; "
            f"rename or remove it"
        )
    return int(match[1]), int(match[2])
