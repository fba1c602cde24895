"""What a model reads from its datasets."""

from dataclasses import dataclass

from dnl_d2.validation.instances import InstanceTask


@dataclass(frozen=True)
class Task:
    """What a model reads from its datasets.

    Args:
        num_classes: classes of its semantic segmentation; None if it does none.
        instances: what it detects; None if it detects nothing.
        only_detects: whether it has no use for label maps for sure.
        proposals_key: the config key by which it reads proposals from files; None if it makes them.
        ignore_label: value of training labels that its mapper ignores; None for the datasets' own.
        ignore_key: the config key of ``ignore_label``, for messages.
        crop_size: (height, width) of training crops; empty for none.
    """

    num_classes: int | None = None
    instances: InstanceTask | None = None
    only_detects: bool = False
    proposals_key: str | None = None
    ignore_label: int | None = None
    ignore_key: str = ""
    crop_size: tuple[int, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the model segments or detects, as far as is known here."""
        return self.num_classes is not None or self.instances is not None
