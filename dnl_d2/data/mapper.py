"""From a dataset record to the model's input, for YAML and LazyConfig alike."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T

from dnl_d2.data.augmentation import largest_size, sem_seg_augmentations, test_augmentations
from dnl_d2.data.cache import PictureCache
from dnl_d2.data.images import image_tensor, read_image
from dnl_d2.data.labels import read_label, remap_ignored, require_valid
from dnl_d2.data.resize import MultiScaleFlip
from dnl_d2.errors import UsageError


class SemSegMapper(DatasetMapper):
    """Reads image and label, maps ignored labels to the model's, augments both.

    Differs from detectron2's mapper where semantic segmentation needs it: label maps are read as
    indices, the dataset's ``ignore_label`` becomes the model's ``ignore_value`` before any crop
    judges it, values outside the classes are an error, and image and label keep their stored
    orientation so that they stay aligned.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        multi_scale_flip: MultiScaleFlip | None = None,
        image_format: str = "RGB",
        ignore_value: int = 255,
        dataset_ignore_label: int = 255,
        num_classes: int,
        cache_dir: str = "",
    ) -> None:
        """
        Args:
            is_train: whether labels are wanted.
            augmentations: applied in order; in test mode a resize at most.
            multi_scale_flip: in test mode, if enabled, takes the place of ``augmentations``.
            image_format: "RGB", "BGR" or another format detectron2 can read.
            ignore_value: the label value the loss ignores.
            dataset_ignore_label: the label value the dataset ignores; 255 is ignored as well.
            num_classes: number of classes; labels are 0 to num_classes - 1.
            cache_dir: folder of a :class:`~dnl_d2.data.cache.PictureCache`; empty for none.

        Raises:
            UsageError: ``ignore_value`` is one of the classes, or ``cache_dir`` cannot be made.
        """
        super().__init__(is_train, augmentations=list(augmentations), image_format=image_format)
        if 0 <= ignore_value < num_classes:
            raise UsageError(
                f"ignore value {ignore_value} is also one of the {num_classes} classes: set "
                "MODEL.SEM_SEG_HEAD.IGNORE_VALUE (LazyConfig: ignore_value) outside them"
            )
        self.multi_scale_flip = multi_scale_flip
        self.ignore_value = ignore_value
        self.dataset_ignore_label = dataset_ignore_label
        self.num_classes = num_classes
        self.cache = PictureCache(cache_dir, largest_size(augmentations)) if cache_dir else None

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Translates a YAML config into the arguments of the constructor."""
        inputs, head = cfg.INPUT, cfg.MODEL.SEM_SEG_HEAD
        base_size = inputs.RESIZE.BASE_SIZE
        if inputs.CROP.ENABLED and inputs.CROP.TYPE != "absolute":
            raise UsageError(
                f"INPUT.CROP.TYPE is {inputs.CROP.TYPE!r}: segmentation takes 'absolute'"
            )
        if is_train:
            augmentations = sem_seg_augmentations(
                base_size=base_size,
                ratio_range=inputs.RESIZE.RATIO_RANGE,
                ratio_step=inputs.RESIZE.RATIO_STEP,
                crop_size=inputs.CROP.SIZE if inputs.CROP.ENABLED else None,
                max_category_area=inputs.CROP.SINGLE_CATEGORY_MAX_AREA,
                ignore_value=head.IGNORE_VALUE,
                flip=_flip_probability(inputs.RANDOM_FLIP),
                photometric=inputs.COLOR_AUG_SSD,
                jitter=inputs.COLOR_JITTER,
                image_format=inputs.FORMAT,
            )
            views, names = None, cfg.DATASETS.TRAIN
        else:
            augmentations = test_augmentations(base_size)
            views = MultiScaleFlip(cfg)
            names = cfg.DATASETS.TEST
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "multi_scale_flip": views,
            "image_format": inputs.FORMAT,
            "ignore_value": head.IGNORE_VALUE,
            "dataset_ignore_label": _common_ignore_label(names),
            "num_classes": head.NUM_CLASSES,
            "cache_dir": inputs.CACHE_DIR if is_train else "",
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Maps one record.

        Args:
            dataset_dict: file_name, and sem_seg_file_name for training; left untouched.

        Returns:
            The record with "image" (C, H', W') uint8, in training "sem_seg" (H', W') int64, and
            "height" and "width" of the image before augmentation. With ``multi_scale_flip``
            enabled not "image" but "images", one per scale, and "flip", whether their mirror
            images are to be predicted too: a model that does not know them cannot ignore them.

        Raises:
            UsageError: a file is missing or unreadable, sizes differ, or a label value is neither
                a class nor ignored; the message names file and value.
        """
        record = copy.deepcopy(dataset_dict)
        image = self.read_image(record)
        if not self.is_train and self.multi_scale_flip and self.multi_scale_flip.enabled:
            return record | self.multi_scale_flip.model_inputs(image)
        label = self.read_label(record) if self.is_train else None
        inputs = T.AugInput(image, sem_seg=label)
        self.augmentations(inputs)
        return record | tensors(inputs)

    def read_image(self, record: dict) -> np.ndarray:
        """The (H, W, C) image of a record, whose "height" and "width" are set or compared."""
        order = self.image_format
        read = partial(read_image, image_format=order)
        image, (height, width) = self._read(record["file_name"], order, read)
        stated = record.setdefault("height", height), record.setdefault("width", width)
        if stated != (height, width):
            raise UsageError(
                f"image {record['file_name']} is {height}x{width} (height x width), its dataset "
                f"record says {stated[0]}x{stated[1]}: the file changed or the record is wrong"
            )
        return image

    def read_label(self, record: dict) -> np.ndarray:
        """The (H, W) label map of a record whose image was read, ignored values as the model's."""
        path = record.get("sem_seg_file_name")
        if path is None:
            raise UsageError(
                f"image {record['file_name']} has no label (sem_seg_file_name) in its dataset "
                "record: training needs one for every image"
            )
        values = {"num_classes": self.num_classes, "ignore_label": self.dataset_ignore_label}
        label, size = self._read(path, "label", read_label, nearest=True)
        require_valid(label, path, **values)
        require_same_size(record["file_name"], (record["height"], record["width"]), path, size)
        return remap_ignored(label, ignore_value=self.ignore_value, **values)

    def _read(
        self, path: str, kind: str, read: Callable[[str], np.ndarray], *, nearest: bool = False
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """The array of a file, and the (height, width) that the file has."""
        if self.cache is not None:
            return self.cache.get(path, kind, read, nearest=nearest)
        array = read(path)
        return array, array.shape[:2]


def tensors(inputs: T.AugInput) -> dict[str, torch.Tensor]:
    """What was augmented as a model reads it: "image" and, if there is one, "sem_seg" (int64)."""
    found = {"image": image_tensor(inputs.image)}
    if inputs.sem_seg is not None:
        found["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype(np.int64))
    return found


def require_same_size(
    image_path: str, image_hw: tuple[int, ...], label_path: str, label_hw: tuple[int, ...]
) -> None:
    """Raises a UsageError naming both files unless their (height, width) are equal."""
    if tuple(image_hw) != tuple(label_hw):
        raise UsageError(
            f"image {image_path} is {image_hw[0]}x{image_hw[1]} (height x width) but its label "
            f"{label_path} is {label_hw[0]}x{label_hw[1]}: they must match pixel by pixel as "
            "stored (an EXIF rotation of the image is not applied)"
        )


def _flip_probability(mode: str) -> float:
    try:
        return {"horizontal": 0.5, "none": 0.0}[mode]
    except KeyError:
        raise UsageError(
            f"INPUT.RANDOM_FLIP is {mode!r}: segmentation takes 'horizontal' or 'none'"
        ) from None


def _common_ignore_label(names: Sequence[str]) -> int:
    labels = {name: MetadataCatalog.get(name).get("ignore_label", 255) for name in names}
    if len(set(labels.values())) > 1:
        raise UsageError(
            f"datasets {labels} differ in ignore_label: one loader needs the same in all of them"
        )
    return next(iter(labels.values()), 255)
