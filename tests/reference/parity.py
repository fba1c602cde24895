"""A model of mmsegmentation beside ours with the same weights, and how far the two differ.

Differences are relative to the reference: max |ours - theirs| / max |theirs|.
"""

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from torch import Tensor, nn

from dnl_d2.checkpoint.convert import Comparison, compare, convert, detect_source
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.data import MultiScaleFlip, SemSegMapper, test_augmentations
from dnl_d2.engine import load_config
from dnl_d2.modeling import ContextSegmentor
from tests.reference import mmseg

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_COMMON = os.path.join(_ROOT, "configs", "common", "segmentation_r50-d8.yaml")
_HEAD = "MODEL.SEM_SEG_HEAD"
# Method -> what its YAML leaves add to the common file.
_METHODS = {
    "fcn": [],
    "nl": [f"{_HEAD}.CONTEXT.NAME", "nl", f"{_HEAD}.CONTEXT.NORM", "BN"],
    "gc": [f"{_HEAD}.CONTEXT.NAME", "gc", f"{_HEAD}.CONTEXT.RATIO", 0.25],
    "dnl": [f"{_HEAD}.CONTEXT.NAME", "dnl", f"{_HEAD}.CONTEXT.NORM", "BN"],
    "ann": [f"{_HEAD}.NAME", "AsymmetricHead", f"{_HEAD}.IN_FEATURES", ["res4", "res5"]],
}
METHODS = tuple(_METHODS)
# Method -> its blocks, as (theirs, ours).
BLOCKS = {
    "nl": [("nl_block", "context_block")],
    "gc": [("gc_block", "context_block")],
    "dnl": [("dnl_block", "context_block")],
    "ann": [("fusion", "fusion"), ("context", "context")],
}


@dataclass
class Twins:
    """Two models with the same weights.

    Args:
        method: one of :data:`METHODS`.
        reference: mmsegmentation's.
        ours: built from our config, with the converted file.
        cfg: that config.
        origin: our parameter names -> theirs.
        keys: the converted file against our model.
        left_over: keys of the file that were not converted.
    """

    method: str
    reference: mmseg.EncoderDecoder
    ours: ContextSegmentor
    cfg: CfgNode
    origin: dict[str, str]
    keys: Comparison
    left_over: list[str]

    def double(self) -> "Twins":
        """Both in float64, with float64 constants inside :func:`float64_constants`."""
        self.reference.double()
        self.ours.double()
        return self


def twins(
    method: str,
    *,
    depth: int = 50,
    align_corners: bool = False,
    num_classes: int = 19,
    dropout: float = 0.0,
    average: str = "all",
    seed: int = 0,
) -> Twins:
    """A reference with random weights, saved as a public file, and our model that loads it."""
    reference = mmseg.build(
        method,
        depth=depth,
        align_corners=align_corners,
        num_classes=num_classes,
        dropout=dropout,
        avg_non_ignore=average == "valid",
        seed=seed,
    )
    state = _through_a_file(reference)
    converted = convert(state, detect_source(state))
    cfg = load_config(_COMMON, _METHODS[method])
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.SEM_SEG_HEAD.NORM = "BN"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = num_classes
    cfg.MODEL.SEM_SEG_HEAD.ALIGN_CORNERS = align_corners
    cfg.MODEL.SEM_SEG_HEAD.DROPOUT = dropout
    cfg.MODEL.SEM_SEG_HEAD.LOSS_AVERAGE = average
    with torch.device("meta"):
        ours = build_model(cfg)
    keys = compare(converted.state, ours.state_dict())
    ours.load_state_dict(converted.state, strict=True, assign=True)
    for name in ("pixel_mean", "pixel_std"):  # in no file
        value = torch.tensor(getattr(cfg.MODEL, name.upper())).view(-1, 1, 1)
        ours.register_buffer(name, value, persistent=False)
    left_over = [*converted.unexpected, *converted.dropped]
    return Twins(method, reference, ours.eval(), cfg, converted.origin, keys, left_over)


def _through_a_file(reference: mmseg.EncoderDecoder) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "iter_40000.pth")
        torch.save({"meta": {"iter": 40000}, "state_dict": reference.state_dict()}, path)
        return read_weights(path).state


def picture(height: int, width: int, *, seed: int = 0) -> Tensor:
    """``(3, height, width)`` uint8: smooth shading, objects with edges, sensor noise."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.normal(size=(1, 3, 4, 5)))
    image = F.interpolate(coarse, (height, width), mode="bicubic")[0].numpy() * 40 + 120
    rows, columns = np.mgrid[:height, :width]
    for _ in range(6):
        y, x = random.uniform(0, height), random.uniform(0, width)
        radius = random.uniform(0.1, 0.4) * min(height, width)
        distance = np.hypot(rows - y, columns - x)
        if random.random() < 0.5:
            distance = np.maximum(abs(rows - y), abs(columns - x))
        image = np.where(distance < radius, random.uniform(0, 255, (3, 1, 1)), image)
    image = image + random.normal(size=image.shape) * 6
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def label_map(height: int, width: int, num_classes: int, *, seed: int = 0) -> Tensor:
    """``(height, width)`` classes in patches, with a border of 255 between them."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(num_classes, (1, 1, 5, 7), generator=generator).float()
    labels = F.interpolate(patches, (height, width))[0, 0].long()
    labels[::9] = labels[:, ::11] = 255
    return labels


def relative(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; infinity where that is no number."""
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    return math.inf if math.isnan(difference) else difference


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
    height, width = size or image.shape[-2:]
    inputs = [{"image": image, "height": height, "width": width}]
    with torch.no_grad():
        got = twins.ours.eval()(inputs)[0]["sem_seg"]
    assert got.shape == expected.shape
    different = got.argmax(0) != labels
    best, second = expected.topk(2, dim=0).values
    ties = different & (best - second < 1e-5 * expected.abs().max())
    return Prediction(relative(got, expected), int(different.sum()), int(ties.sum()))


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
    assert got.shape == expected.shape
    different = got.argmax(0) != labels
    best, second = expected.topk(2, dim=0).values
    ties = different & (best - second < 1e-6)
    return Prediction(float((got - expected).abs().max()), int(different.sum()), int(ties.sum()))


def slide(twins: Twins, window: Sequence[int], stride: Sequence[int]) -> None:
    """Switches both to sliding windows, or with an empty window to the whole image."""
    mmseg.slide(twins.reference, window, stride)
    twins.ours.slide_window, twins.ours.slide_stride = window, stride


@dataclass
class Training:
    """Largest relative differences of losses, gradients, weights after a step and statistics."""

    loss: float
    gradient: float
    weights: float
    statistics: float


def train(
    twins: Twins, images: Tensor, labels: Tensor, *, steps: int = 1, seed: int = 0
) -> Training:
    """Compares steps of training, batch norm and dropout (with equal seeds) included.

    The statistics leave out those that mmsegmentation updates twice a step: its ANN head runs the
    projection that keys and queries share once for each.
    """
    theirs = mmseg.optimizer(twins.reference)
    mine = build_optimizer(twins.cfg, twins.ours)
    batch = [{"image": x, "sem_seg": y} for x, y in zip(images, labels, strict=True)]
    result = Training(0.0, 0.0, 0.0, 0.0)
    for _ in range(steps):
        torch.manual_seed(seed)
        expected = mmseg.losses(twins.reference, images, labels)
        torch.manual_seed(seed)
        got = twins.ours.train()(batch)
        for value, other in zip(got.values(), expected.values(), strict=True):
            result.loss = max(result.loss, relative(value, other))
        for optimizer, losses in ((theirs, expected), (mine, got)):
            optimizer.zero_grad()
            sum(losses.values()).backward()
        result.gradient = max(result.gradient, max(gradient_differences(twins).values()))
        theirs.step()
        mine.step()
    _compare_weights(twins, result)
    return result


def gradient_differences(twins: Twins) -> dict[str, float]:
    """Relative difference of every parameter's gradient, by our name.

    A softmax or a norm cancels the bias in front of it. Such gradients are zero but for rounding,
    less than a millionth of the largest one; they must be so in both models and then count as 0.
    """
    parameters = dict(twins.reference.named_parameters())
    pairs = {
        n: (p.grad, parameters[twins.origin[n]].grad) for n, p in twins.ours.named_parameters()
    }
    assert len(pairs) == len(parameters)
    rounding = 1e-6 * max(theirs.abs().max() for _, theirs in pairs.values())
    return {
        name: 0.0
        if max(ours.abs().max(), theirs.abs().max()) < rounding
        else relative(ours, theirs)
        for name, (ours, theirs) in pairs.items()
    }


def _compare_weights(twins: Twins, result: Training) -> None:
    expected = twins.reference.state_dict()
    for name, value in twins.ours.state_dict().items():
        difference = relative(value, expected[twins.origin[name]])
        if "running_" not in name and "num_batches" not in name:
            result.weights = max(result.weights, difference)
        elif not name.startswith("sem_seg_head.context.attend.key."):
            result.statistics = max(result.statistics, difference)


@contextlib.contextmanager
def float64_constants() -> Iterator[None]:
    """Makes ``torch.tensor(0.05)`` a float64, which mmsegmentation's DNL divides by."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def block_difference(twins: Twins, *, size: tuple[int, int] = (9, 13)) -> float:
    """Largest relative difference of the head's context blocks in float64."""
    heads = twins.ours.sem_seg_head, twins.reference.decode_head
    return max(
        compare_blocks(getattr(heads[0], ours), getattr(heads[1], theirs), size=size)
        for theirs, ours in BLOCKS[twins.method]
    )


def compare_blocks(ours: nn.Module, theirs: nn.Module, *, size: tuple[int, ...]) -> float:
    """Relative difference of two blocks in float64 on random maps."""
    ours, theirs = (copy.deepcopy(block).double().eval() for block in (ours, theirs))
    generator = torch.Generator().manual_seed(0)

    def maps(channels: int) -> Tensor:
        return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)

    x = maps(ours.in_channels)
    with torch.no_grad(), float64_constants():
        if hasattr(ours, "low_channels"):
            low = maps(ours.low_channels)
            return relative(ours(x, low=low), theirs(low, x))
        return relative(ours(x), theirs(x))
