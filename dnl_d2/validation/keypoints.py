"""Whether the keypoints that datasets tell of are those that a model learns and is judged by."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES
from detectron2.data.detection_utils import create_keypoint_hflip_indices

from dnl_d2.data.datasets.keypoints import UnknownKeypoints
from dnl_d2.errors import UsageError

_logger = logging.getLogger(__name__)
_COCO = len(COCO_PERSON_KEYPOINT_NAMES)
_LISTED = 6  # how many names a message lists


@dataclass(frozen=True)
class KeypointTask:
    """What a model knows of keypoints.

    Args:
        count: how many it predicts; None if the config does not say.
        count_key: the config key of ``count``, for messages.
        sigmas: of each point in evaluation, empty for those of COCO's 17; None if the config does
            not say.
        sigmas_key: the config key of ``sigmas``.
        flip: how training mirrors pictures: ``horizontal``, ``vertical`` or ``none``.
        flip_key: the config key of ``flip``.
        flip_indices: which point takes the place of each in a mirror image; None for what the
            training sets tell.
        flip_indices_key: the config key of ``flip_indices``.
    """

    count: int | None
    count_key: str
    sigmas: tuple[float, ...] | None
    sigmas_key: str
    flip: str
    flip_key: str
    flip_indices: tuple[int, ...] | None = None
    flip_indices_key: str = ""


def check_keypoint_count(count: int, what: str, task: KeypointTask) -> None:
    """Raises a :class:`UsageError` if ``what`` has another number of keypoints than the model."""
    if task.count not in (None, count):
        raise UsageError(
            f"{what} has {count} keypoints, but the model predicts {task.count}: set "
            f"{task.count_key} to {count}"
        )


def check_keypoints(train: Sequence[str], test: Sequence[str], task: KeypointTask) -> None:
    """Fails now, in one line, where names, numbers or mirror pairs of keypoints do not fit.

    Args:
        train: registered datasets to train with.
        test: those to evaluate on.
        task: what the model knows.

    Raises:
        UsageError: another number of keypoints or of sigmas; other names, or in another order, in
            another dataset; or pictures are mirrored, and which points that swaps is not known or
            is not what the config says.
    """
    metas = [MetadataCatalog.get(name) for name in dict.fromkeys((*train, *test))]
    named = [meta for meta in metas if hasattr(meta, "keypoint_names")]
    for meta in named:
        names = _listed(meta.keypoint_names)
        check_keypoint_count(len(meta.keypoint_names), f"dataset {meta.name} ({names})", task)
        if meta.keypoint_names != named[0].keypoint_names:
            raise UsageError(
                f"datasets {named[0].name} and {meta.name} differ in their keypoints: "
                f"{_listed(named[0].keypoint_names)}; and {names}: give both the same names in "
                "the same order"
            )
    if train:
        _check_flips(train, task)
    if test:
        _check_sigmas(named, task)


def _check_flips(train: Sequence[str], task: KeypointTask) -> None:
    if task.flip == "none":
        return
    if task.flip != "horizontal":
        raise UsageError(
            f"{task.flip_key}: Detectron2 does not swap keypoints in {task.flip} mirror images, "
            "use horizontal ones or none"
        )
    try:
        for name in train:
            _check_flip_map(MetadataCatalog.get(name))
        known = create_keypoint_hflip_indices(list(train))
    except UnknownKeypoints as error:
        if task.flip_indices is not None:  # told, and nothing says otherwise
            return
        raise UsageError(f"{error}; or do not mirror pictures ({task.flip_key})") from error
    if task.flip_indices not in (None, tuple(known)):
        raise UsageError(
            f"{task.flip_indices_key} are {list(task.flip_indices)}, those of {train[0]} are "
            f"{known}: set {task.flip_indices_key} to null, which takes these"
        )


def _check_flip_map(meta: Metadata) -> None:
    names = _told(meta, "keypoint_names")
    for pair in _told(meta, "keypoint_flip_map"):
        unknown = next((name for name in pair if name not in names), None)
        if unknown is not None:
            raise UsageError(
                f"dataset {meta.name}: its keypoint_flip_map names {unknown!r}, which is none of "
                f"its keypoints ({_listed(names)})"
            )


def _told(meta: Metadata, key: str) -> list:
    try:
        return getattr(meta, key)
    except UnknownKeypoints:
        raise
    except AttributeError as error:
        raise UnknownKeypoints(
            f"dataset {meta.name}: its metadata have no {key}, by which mirror images swap "
            "keypoints: set it"
        ) from error


def _check_sigmas(named: Sequence[Metadata], task: KeypointTask) -> None:
    if task.sigmas is None:
        return
    count = task.count or len(task.sigmas) or _COCO
    if len(task.sigmas or COCO_PERSON_KEYPOINT_NAMES) != count:
        told = f"has {len(task.sigmas)} numbers" if task.sigmas else f"is empty (COCO's {_COCO})"
        raise UsageError(
            f"{task.sigmas_key} {told}, but {task.count_key} is {count}: give one above 0 for each "
            "keypoint, 0.025 (an eye) to 0.107 (a hip) in COCO"
        )
    if not all(sigma > 0 for sigma in task.sigmas):
        raise UsageError(f"{task.sigmas_key} are {list(task.sigmas)}: give numbers above 0")
    others = [m.name for m in named if list(m.keypoint_names) != list(COCO_PERSON_KEYPOINT_NAMES)]
    if others and not task.sigmas:
        _logger.warning(
            "%s is empty: the keypoints of %s, named otherwise than COCO's, are judged by the "
            "tolerances of COCO's", task.sigmas_key, others[0],
        )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
