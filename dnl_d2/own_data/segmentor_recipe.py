"""What a config for two folders changes of the config it starts from."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dnl_d2.own_data.schedule import FEW_PICTURES, SEGMENTOR_EPOCHS, Schedule, fitting_schedule
from dnl_d2.validation import Inspection


@dataclass(frozen=True)
class SegmentorRecipe:
    """What a config for two folders changes of its base.

    Args:
        base: the config it changes, relative to where it will lie.
        classes: names of the classes.
        base_size: long and short side of an image.
        output_dir: where its runs will write.
        crop_size: (height, width), where the base's does not suit the images.
        weights: of the classes, for a line that is commented out.
        schedule: how long to train; None for as long as the base.
        rates: the base's learning rate, and in YAML that at the end of its schedule.
        warms_up: whether the base's schedule has a warm-up.
        small: whether to train ResNet-18 in place of the base's backbone.
    """

    base: str
    classes: Sequence[str]
    base_size: Sequence[int]
    output_dir: str
    crop_size: Sequence[int] = ()
    weights: Sequence[float] = ()
    schedule: Schedule | None = None
    rates: Sequence[float] = ()
    warms_up: bool = False
    small: bool = False


@dataclass(frozen=True)
class Base:
    """A config to start from.

    Args:
        path: relative to where the new config will lie.
        crop_size: (height, width) of its crops; empty for none.
        batch_size: images per iteration; 0 where it does not say.
        max_iter: its iterations.
        rates, warms_up: as in :class:`SegmentorRecipe`.
        replaceable: whether ResNet-18 may take its backbone's place where there are few pictures.
    """

    path: str
    crop_size: Sequence[int]
    batch_size: int
    max_iter: int
    rates: Sequence[float]
    warms_up: bool
    replaceable: bool


def fitting_recipe(
    base: Base, inspection: Inspection, *, images: int, batch_size: int, output_dir: str
) -> SegmentorRecipe:
    """What to change of a base for pictures that were looked at.

    Args:
        base: the config to start from.
        inspection: of the pictures; the first set is for training.
        images: how many of them there are to train on.
        batch_size: images per iteration; with fewer pictures, that many.
        output_dir: of the new config.
    """
    sizes = list(inspection.summaries[0].sizes.elements())
    height_width = [int(statistics.median(sides)) for sides in zip(*sizes, strict=True)]
    return SegmentorRecipe(
        base=base.path,
        classes=inspection.classes or (),
        base_size=[int(statistics.median(map(side, sizes))) for side in (max, min)],
        crop_size=fitting_crop(base.crop_size, height_width),
        output_dir=output_dir,
        weights=inspection.weights or (),
        schedule=fitting_schedule(
            images,
            epochs=SEGMENTOR_EPOCHS,
            batch_size=batch_size,
            base_batch_size=base.batch_size or batch_size,
            base_max_iter=base.max_iter,
        ),
        rates=base.rates,
        warms_up=base.warms_up,
        small=base.replaceable and images < FEW_PICTURES,
    )


def fitting_crop(crop: Sequence[int], size: Sequence[int]) -> list[int]:
    """A crop, cut down to pictures that are smaller.

    Args:
        crop: (height, width) of a config's crops; empty for none.
        size: (height, width) of the pictures.

    Returns:
        (height, width); empty where the crop fits, or there is none.
    """
    fitting = [min(sides) for sides in zip(crop, size, strict=False)]
    return fitting if fitting != list(crop) else []
