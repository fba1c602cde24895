"""What two models with the same weights make of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dnl_d2.data import MultiScaleFlip, SemSegMapper, test_augmentations
from dnl_d2_parity.comparison.models import Twins
from dnl_d2_parity.differences import relative
from dnl_d2_parity.references import mmseg


@dataclass
class Prediction:
    """How far apart two predictions are.

    Args:
        logits: relative difference of logits, or the absolute one of probabilities.
        pixels: how many have another class.
        ties: how many of them have two largest logits that differ by less than rounding does.
    """

    logits: float
    pixels: int
    ties: int


def predict(twins: Twins, image: Tensor, size: tuple[int, int] | None = None) -> Prediction:
    """Compares what the two make of an image, resized to ``size``, both in evaluation."""
    expected, labels = mmseg.predict(twins.reference, image, size)
    asked = {} if size is None else {"height": size[0], "width": size[1]}
    inputs = [{"image": image} | asked]
    with torch.no_grad():
        got = twins.ours.eval()(inputs)[0]["sem_seg"]
    tie = 1e-5 * expected.abs().max().item()
    return _compare(relative(got, expected), got, expected, labels, tie)


def predict_file(
    twins: Twins,
    path: str,
    *,
    base_size: Sequence[int] | None,
    scales: Sequence[float] = (),
    flip: bool = True,
) -> Prediction:
    """Compares what the two make of a picture file, each with its own reading and resizing.

    Args:
        twins: both in evaluation.
        path: the picture.
        base_size: (long, short) to fit; None: as it is.
        scales: empty for a single scale, whose logits count, otherwise ms+flip. mmsegmentation
            0.x, whose test code is restated here by means of 1.x's, scales ``base_size``; 1.x, as
            it does, the picture.
        flip: with ``scales``.
    """
    whole = {"scale": base_size} if base_size else {"scale_factor": 1.0}
    resizes = [
        {"scale": tuple(int(side * r) for side in base_size)} if base_size else {"scale_factor": r}
        for r in scales
    ] or [whole]
    expected, labels = mmseg.predict_file(
        twins.reference, path, resizes, flip=flip and bool(scales)
    )
    mapper = SemSegMapper(
        False,
        augmentations=test_augmentations(base_size),
        multi_scale_flip=MultiScaleFlip(base_size=base_size, scales=scales, flip=flip)
        if scales
        else None,
        num_classes=expected.shape[0],
    )
    with torch.no_grad():
        got = twins.ours.eval()([mapper({"file_name": path})])[0]["sem_seg"]
    got = got if scales else got.softmax(0)
    return _compare(float((got - expected).abs().max()), got, expected, labels, 1e-6)


def _compare(
    difference: float, got: Tensor, expected: Tensor, labels: Tensor, tie: float
) -> Prediction:
    assert got.shape == expected.shape
    different = got.argmax(0) != labels
    best, second = expected.topk(2, dim=0).values
    ties = different & (best - second < tie)
    return Prediction(difference, int(different.sum()), int(ties.sum()))


def slide(twins: Twins, window: Sequence[int], stride: Sequence[int]) -> None:
    """Switches both to sliding windows, or with an empty window to the whole image."""
    mmseg.slide(twins.reference, window, stride)
    twins.ours.slide_window, twins.ours.slide_stride = window, stride
