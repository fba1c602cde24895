"""A model of mmsegmentation beside ours with the same weights, and what both get to see."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from dnl_d2.checkpoint.convert import Comparison, compare, convert, detect_source
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.engine import load_config
from dnl_d2.modeling import ContextSegmentor
from dnl_d2_parity.references import mmseg

_COMMON = Path(__file__).parents[4] / "configs" / "common" / "segmentation_r50-d8.yaml"
_HEAD = "MODEL.SEM_SEG_HEAD"
# Method -> what its YAML leaves add to the common file.
_METHODS = {
    "fcn": [],
    "nl": [f"{_HEAD}.CONTEXT.NAME", "nl", f"{_HEAD}.CONTEXT.NORM", "BN"],
    "gc": [f"{_HEAD}.CONTEXT.NAME", "gc", f"{_HEAD}.CONTEXT.RATIO", 0.25],
    "dnl": [f"{_HEAD}.CONTEXT.NAME", "dnl", f"{_HEAD}.CONTEXT.NORM", "BN"],
    "ann": [f"{_HEAD}.NAME", "AsymmetricHead", f"{_HEAD}.IN_FEATURES", ["res4", "res5"]],
}
# Keys of channels, as multiples of the width of res2's bottlenecks.
_CHANNELS = {
    "RESNETS.STEM_OUT_CHANNELS": 1,
    "RESNETS.WIDTH_PER_GROUP": 1,
    "RESNETS.RES2_OUT_CHANNELS": 4,
    "SEM_SEG_HEAD.CONVS_DIM": 8,
    "SEM_SEG_HEAD.ASYMMETRIC.PROJECT_CHANNELS": 4,
    "SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": 4,
}
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
        method: ``fcn``, ``nl``, ``gc``, ``dnl`` or ``ann``.
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
    width: int = 64,
    seed: int = 0,
) -> Twins:
    """A reference with random weights, saved as a public file, and our model that loads it.

    With ``width`` below the published 64 both are as much narrower everywhere.
    """
    reference = mmseg.build(
        method,
        depth=depth,
        align_corners=align_corners,
        num_classes=num_classes,
        dropout=dropout,
        avg_non_ignore=average == "valid",
        width=width,
        seed=seed,
    )
    state = _through_a_file(reference)
    converted = convert(state, detect_source(state))
    cfg = load_config(str(_COMMON), _METHODS[method])
    for key, factor in _CHANNELS.items():
        cfg.merge_from_list([f"MODEL.{key}", factor * width])
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


def batch(height: int, width: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Two pictures and their label maps."""
    images = torch.stack([picture(height, width, seed=seed) for seed in (1, 2)])
    labels = [label_map(height, width, num_classes, seed=seed) for seed in (1, 2)]
    return images, torch.stack(labels)
