"""Pictures of predictions beside the truth, of the same few images at every evaluation."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as detectron2_images
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from detectron2.utils.events import EventWriter, get_event_storage
from PIL import Image
from torch import nn

from dnl_d2.data import read_image, read_label
from dnl_d2.data.labels import remap_ignored
from dnl_d2.reporting.aside import only_warning, random_state_kept
from dnl_d2.visualization import class_colors, color_label

_SIDE = 512  # pixels that the longer side of a panel has at most
_GAP = 4  # pixels between panels
_MIN_SCORE = 0.5  # of objects that are drawn
_NEAREST = Image.Resampling.NEAREST


class PredictionPictures:
    """Draws predictions beside the truth, and hands the pictures to those who write events.

    A picture is called ``DATASET/NAME``; of a model that predicts objects and label maps there are
    two. From left to right: the image, the prediction, and the truth if there is one.

    Args:
        test_sets: names of datasets.
        count: images of each, spread evenly over it.
        build_mapper: from a record to what the model reads in an evaluation.
    """

    def __init__(
        self,
        test_sets: Sequence[str],
        count: int,
        build_mapper: Callable[[], Callable[[dict], dict]],
    ):
        self._test_sets = test_sets
        self._count = count if test_sets else 0
        self._build_mapper = build_mapper
        self._mapper: Callable[[dict], dict] | None = None
        self._records: list[tuple[str, str, dict]] = []  # dataset, name of the picture, record

    def show(self, model: nn.Module) -> None:
        """Puts the pictures of this iteration into the current EventStorage.

        What fails is a warning, and the last one: nothing is drawn from then on. Random numbers
        and the model's mode are afterwards as they were.
        """
        if not self._count:
            return
        was_training, storage = model.training, get_event_storage()
        drawn = False
        with only_warning("no pictures of predictions"), random_state_kept(), torch.no_grad():
            try:
                model.eval()
                for name, picture in self._draw(model):
                    storage.put_image(name, picture.transpose(2, 0, 1))
                drawn = True
            finally:
                model.train(was_training)
        if not drawn:
            self._count = 0

    def _draw(self, model: nn.Module) -> Iterator[tuple[str, np.ndarray]]:
        if self._mapper is None:
            self._mapper = self._build_mapper()
            for name in self._test_sets:
                records = _spread(DatasetCatalog.get(name), self._count)
                stems = _distinct_stems([record["file_name"] for record in records])
                self._records += [(name, *pair) for pair in zip(stems, records, strict=True)]
        for dataset, stem, record in self._records:
            (output,) = model([self._mapper(copy.deepcopy(record))])
            drawn = draw_beside_truth(record, output, MetadataCatalog.get(dataset))
            for kind, picture in drawn.items():
                yield f"{dataset}/{stem}" + (f"/{kind}" if len(drawn) > 1 else ""), picture


class PicturesForgetter(EventWriter):
    """The last of writers: clears pictures, which only Detectron2's TensorboardXWriter does.

    Without either each is kept in memory until the run ends, and written again each time.
    """

    def write(self) -> None:
        get_event_storage().clear_images()


def draw_beside_truth(
    record: dict, output: dict[str, Any], metadata: Metadata
) -> dict[str, np.ndarray]:
    """What a model predicts of an image beside its labels.

    Args:
        record: of the dataset.
        output: of the model, with ``sem_seg``, ``instances`` or both.
        metadata: of the dataset, for colours and names.

    Returns:
        ``(h, w, 3)`` uint8 pictures, by the key of ``output`` that each shows.

    Raises:
        UsageError: image or label cannot be read.
    """
    drawings = {"sem_seg": _draw_label_maps, "instances": _draw_objects}
    return {
        key: draw(record, output[key], metadata) for key, draw in drawings.items() if key in output
    }


def _spread(records: list[dict], count: int) -> list[dict]:
    count = min(count, len(records))
    return [records[number * len(records) // count] for number in range(count)]


def _distinct_stems(paths: Sequence[str]) -> list[str]:
    """Names of files without endings; behind the number of the file where two have the same."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{number}-{stem}" for number, stem in enumerate(stems)
    ]


def _draw_label_maps(record: dict, scores: torch.Tensor, metadata: Metadata) -> np.ndarray:
    classes = len(scores)
    colors = class_colors(classes, metadata.get("stuff_colors", None))
    maps = [scores.argmax(0).cpu().numpy()]
    if "sem_seg_file_name" in record:
        truth, ignored = read_label(record["sem_seg_file_name"]), metadata.get("ignore_label", 255)
        none = {"ignore_label": ignored, "ignore_value": classes}  # which has no colour
        maps.append(remap_ignored(truth, num_classes=classes, **none))
    image = read_image(record["file_name"], "RGB")
    size = _fitted(image, largest_scale=1.0)
    return _in_a_row(
        [
            _resized(image, size),
            *(_resized(color_label(labels, colors), size, _NEAREST) for labels in maps),
        ]
    )


def _draw_objects(record: dict, instances: Instances, metadata: Metadata) -> np.ndarray:
    from detectron2.utils.visualizer import Visualizer  # which imports OpenCV

    image = detectron2_images.read_image(record["file_name"], "RGB")
    size = _fitted(image, largest_scale=4.0)  # of small images: names need room
    scale = size[0] / image.shape[1]

    def visualizer() -> Visualizer:
        np.random.seed(0)  # of the colours
        return Visualizer(image, metadata, scale=scale)

    found = instances[instances.scores >= _MIN_SCORE].to("cpu")
    drawn = [visualizer().draw_instance_predictions(found)]
    if "annotations" in record:
        drawn.append(visualizer().draw_dataset_dict({"annotations": record["annotations"]}))
    panels = [image, *(panel.get_image() for panel in drawn)]
    return _in_a_row([_resized(panel, size) for panel in panels])


def _fitted(image: np.ndarray, *, largest_scale: float) -> tuple[int, int]:
    """Width and height of an image whose longer side is made that of a panel, or nearly."""
    height, width = image.shape[:2]
    scale = min(largest_scale, _SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(
    panel: np.ndarray, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BOX
) -> np.ndarray:
    return np.asarray(Image.fromarray(panel).resize(size, how))


def _in_a_row(panels: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    row = [part for panel in panels for part in (gap, panel)]
    return np.concatenate(row[1:], axis=1)
