"""The generated instance dataset: what things are, a local window cannot know."""

import json
import os

import numpy as np
from PIL import Image

from dnl_d2.data.datasets.generated import INSTANCE_COLORS
from dnl_d2.errors import UsageError
from dnl_d2.synthetic.drawing import PAIRED, TEXTURE_A, TEXTURE_B, Thing, draw_things
from dnl_d2.synthetic.folders import SPLITS, dataset_parameters, toss, write_folder

_BEACON = 28.0  # its radius; twice that of the semantic dataset, where training is longer
_RECIPE = 1  # raise it when the pictures change
_LETTERS = {TEXTURE_A: "a", TEXTURE_B: "b"}


def generate_instances(
    root: str,
    *,
    train: int = 1024,
    val: int = 128,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    reach: float = 60.0,
    noise: float = 12.0,
    couples: int = 2,
) -> None:
    """Writes ``root/{train,val}/*.png`` and ``root/annotations/instances_{train,val}.json``.

    The annotations are COCO's, with polygons. With ``root`` at
    ``$DETECTRON2_DATASETS/generated_instances`` it is what ``generated_instances_train`` and
    ``generated_instances_val`` name. The scenes are those of
    :func:`dnl_d2.synthetic.generate_dataset` with a beacon twice as large, and every thing in them
    is an instance:

    * The beacon, by its kind, is a beacon_a or a beacon_b. Two striped areas are both texture_a or
      both texture_b, which only the beacon tells.
    * Of each of ``couples`` colours there may be a plain disc and a disc with a dark dot. The class
      of the latter is dotted. A plain disc is paired where its dotted twin of the same colour is
      somewhere in the picture, and single where it is not.

    What a window can know at best: as in the semantic dataset, the answers are fair coins and lie
    at least ``reach`` pixels (or a third of the shorter side) away. Such a window finds every
    thing, and the class of beacons and dotted discs, but is right half of the time about the four
    other classes. If it reports every such thing as both of its classes, in random order, AP is
    about 55 % on each of these four (at 128 pictures; 50 % in the limit) and (3 * 100 + 4 * 55) / 7
    = 74 % over all. With context, 100 % is possible.

    Picture i of a split depends on ``seed``, split, i and the drawing parameters alone. In any four
    pictures from a multiple of 4 on, each beacon occurs twice and, of each couple, both discs,
    either one and none. The folder is written aside and then renamed; where it already holds these
    very parameters it is left as it is.

    Args:
        root: folder to write; replaced if it holds a generated dataset of other parameters.
        train: number of training pictures.
        val: number of validation pictures.
        size: height and width, or one number for both.
        seed: seed of all pictures.
        reach: pixels between a question and its answer.
        noise: standard deviation of the pixel noise, in grey values.
        couples: number of couples of discs, at most 4.

    Raises:
        UsageError: a number is out of its range, or ``root`` holds anything else.
    """
    if not 0 <= couples <= 4:
        raise UsageError(f"generated dataset: couples {couples} must be 0 to 4")
    parameters = dataset_parameters(
        _RECIPE, train=train, val=val, size=size, seed=seed, reach=reach, noise=noise
    )
    parameters |= {"task": "instances", "couples": couples}
    counts = {split: parameters[split] for split in SPLITS} | {"annotations": len(SPLITS)}
    write_folder(root, parameters, counts, _write_split)


def draw_instances(
    index: int, *, split: str, size: tuple[int, int], seed: int, couples: int = 2, **drawing: float
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Draws picture ``index`` of a split; arguments as in :func:`generate_instances`.

    Args:
        index, split, size, seed: tell which picture.
        couples: number of couples of discs.
        drawing: ``reach`` and ``noise``.

    Returns:
        image (H, W, 3) uint8 RGB, and class and mask (H, W) bool of every instance.
    """
    key = (seed, SPLITS.index(split))
    kind, present = toss(key, index, couples=couples)
    image, things = draw_things(
        np.random.default_rng((*key, 1, index)), size, beacon_kind=kind, present=present,
        beacon=_BEACON, **drawing,
    )  # fmt: skip
    return image, [(_class_of(thing), thing.mask) for thing in things]


def _class_of(thing: Thing) -> str:
    if thing.label in _LETTERS:
        return f"{thing.kind}_{_LETTERS[thing.label]}"
    if thing.kind == "dotted":
        return "dotted"
    return "paired" if thing.label == PAIRED else "single"


def outline(mask: np.ndarray) -> list[float]:
    """The polygon around a mask whose rows are each one run of pixels, along the pixels' edges.

    Args:
        mask: (H, W) bool; not empty.

    Returns:
        x and y of its corners in turn: down the left edge and up the right one.
    """
    rows = np.flatnonzero(mask.any(1))
    left = mask[rows].argmax(1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(1)
    down = [point for y, x in zip(rows, left, strict=True) for point in ((x, y), (x, y + 1))]
    up = [point for y, x in zip(rows, right, strict=True) for point in ((x, y), (x, y + 1))]
    return [float(number) for point in (*down, *reversed(up)) for number in point]


def _annotation(name: str, mask: np.ndarray) -> dict:
    """All of a COCO annotation but the ids of itself and its picture."""
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "category_id": list(INSTANCE_COLORS).index(name) + 1,
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
        "area": int(mask.sum()),
        "segmentation": [outline(mask)],
        "iscrowd": 0,
    }


def _write_split(folder: str, split: str, parameters: dict) -> None:
    for name in (split, "annotations"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    height, width = parameters["size"]
    drawing = {key: parameters[key] for key in ("seed", "reach", "noise", "couples")}
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(parameters[split]):
        picture, instances = draw_instances(index, split=split, size=(height, width), **drawing)
        file_name = f"{index:05d}.png"
        Image.fromarray(picture).save(os.path.join(folder, split, file_name), compress_level=1)
        images.append({"id": index, "file_name": file_name, "height": height, "width": width})
        for name, mask in instances:
            ids = {"id": len(annotations) + 1, "image_id": index}
            annotations.append(ids | _annotation(name, mask))
    categories = [
        {"id": number, "name": name} for number, name in enumerate(INSTANCE_COLORS, start=1)
    ]
    coco = {
        "info": {"description": "generated by dnl_d2", "parameters": parameters},
        "images": images, "annotations": annotations, "categories": categories,
    }  # fmt: skip
    with open(os.path.join(folder, "annotations", f"instances_{split}.json"), "w") as file:
        json.dump(coco, file)
