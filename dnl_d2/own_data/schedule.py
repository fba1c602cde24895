"""How long to train on so many pictures."""

import math
from dataclasses import dataclass

SEGMENTOR_EPOCHS, DETECTOR_EPOCHS = 60, 36  # about those of published runs on ADE20K and COCO
SHORTEST = 1000  # iterations
FEW_PICTURES = 300  # with fewer, a small network learns the same in less time
BATCH_SIZE = 4  # what one GPU holds


@dataclass(frozen=True)
class Schedule:
    """The length of a run and of its parts, in iterations.

    Args:
        images: pictures to train on.
        batch_size: images per iteration.
        rate_factor: of the base's learning rates, for this batch size (arXiv 1706.02677).
        max_iter: iterations in all.
        warmup: iterations of the warm-up.
        period: iterations between evaluations, and between checkpoints.
        steps: where a rate that falls in steps does.
    """

    images: int
    batch_size: int
    rate_factor: float
    max_iter: int
    warmup: int
    period: int
    steps: tuple[int, int]

    @property
    def remark(self) -> str:
        """The length of the run in words."""
        epochs = self.max_iter * self.batch_size / self.images
        pictures = f"{self.images} picture{'s'[: self.images - 1]}"
        times = f"{epochs:.1f}" if epochs < 10 else f"{epochs:.0f}"
        return f"{times} times {pictures} in batches of {self.batch_size}"


def fitting_schedule(
    images: int, *, epochs: int, batch_size: int, base_batch_size: int, base_max_iter: int
) -> Schedule:
    """The schedule for a number of pictures.

    ``epochs`` times all pictures, but at least 1000 iterations and no more pictures than the base
    sees; a twentieth of it, at most 1000 iterations, is warm-up, and there are ten evaluations.
    Rates that fall in steps do so after two thirds and eight ninths.

    Args:
        images: pictures to train on.
        epochs: how often to see each.
        batch_size: images per iteration; with fewer pictures, that many.
        base_batch_size, base_max_iter: of the config that is changed.
    """
    batch_size = min(batch_size, images)
    longest = base_max_iter * base_batch_size // batch_size
    wanted = max(SHORTEST, math.ceil(epochs * images / batch_size))
    max_iter = min(math.ceil(wanted / 100) * 100, longest)
    return Schedule(
        images=images,
        batch_size=batch_size,
        rate_factor=batch_size / base_batch_size,
        max_iter=max_iter,
        warmup=min(1000, max_iter // 20),
        period=max(1, max_iter // 10),
        steps=(max_iter * 2 // 3, max_iter * 8 // 9),
    )
