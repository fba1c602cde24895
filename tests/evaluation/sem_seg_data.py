"""Small datasets to evaluate on, and predictions for them."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from cityscapesscripts.helpers.labels import id2label, trainId2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

CLASSES = [trainId2label[i].name for i in range(19)]
SIZE = (64, 128)


def write_cityscapes(
    root: pathlib.Path,
    *,
    images: int,
    without: Sequence[str] = (),
    ids: Sequence[int] = tuple(range(34)),
) -> list[dict]:
    """A split in the official layout with labels of 16x16 blocks; returns its records.

    Args:
        root: folder to write to.
        images: how many.
        without: kinds of label to leave out, such as instanceIds.
        ids: label ids to draw from.
    """
    rng = np.random.default_rng(7)
    train_ids = np.array([id2label[i].trainId for i in range(34)], np.uint8)
    records = []
    for number in range(images):
        city = ("aachen", "ulm")[number % 2]
        stem = f"{city}_{number:06d}_000019"
        image = root / "leftImg8bit/val" / city / f"{stem}_leftImg8bit.png"
        label = root / "gtFine/val" / city / f"{stem}_gtFine_labelTrainIds.png"
        for file in (image, label):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(image)
        blocks = rng.choice(ids, (SIZE[0] // 16, SIZE[1] // 16)).astype(np.uint8)
        label_ids = blocks.repeat(16, 0).repeat(16, 1)
        instances = label_ids.astype(np.uint16)
        for i in np.unique(label_ids):
            if id2label[int(i)].hasInstances:
                # Two objects of unequal size, which the script's weights tell apart.
                objects = 1000 * int(i) + (np.arange(SIZE[1]) % 16 < 5)
                instances = np.where(label_ids == i, objects, instances)
        kinds = {
            "labelIds": label_ids,
            "instanceIds": instances.astype(np.uint16),
            "labelTrainIds": train_ids[label_ids],
        }
        for kind in set(kinds) - set(without):
            Image.fromarray(kinds[kind]).save(str(label).replace("labelTrainIds", kind))
        records.append({"file_name": str(image), "sem_seg_file_name": str(label)})
    return records


@contextlib.contextmanager
def registered(
    name: str, records: list[dict], *, kind: str = "", classes: Sequence[str] = ()
) -> Iterator[str]:
    """Has a dataset of these records and classes under a name; gives the name."""
    DatasetCatalog.register(name, lambda: records)
    meta = MetadataCatalog.get(name)
    meta.set(stuff_classes=list(classes), ignore_label=255, evaluator_type=kind)
    try:
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def scores_for(number: int, size: tuple[int, int] = SIZE, classes: int = 19) -> torch.Tensor:
    """``(K, H, W)`` scores of an image, the same in every process."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(classes, *size, generator=generator)


def evaluate(evaluator, records: Sequence[dict], numbers: Sequence[int] | None = None) -> dict:
    """Runs an evaluator over predictions by :func:`scores_for` of the records' numbers."""
    evaluator.reset()
    numbers = range(len(records)) if numbers is None else numbers
    for number, record in zip(numbers, records, strict=True):
        evaluator.process([record], [{"sem_seg": scores_for(number)}])
    return evaluator.evaluate()
