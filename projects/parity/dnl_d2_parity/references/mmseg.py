"""mmsegmentation's own models with random weights, run by its own test and training code.

Models come from the published config files, which the package brings along.
"""

import functools
import os
from collections.abc import Callable, Sequence

import mmseg
import mmseg.datasets  # its transforms
import mmseg.models
import torch
from mmengine import Config
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor

from dnl_d2_parity.references import weights

# Method -> (folder, start of the name) of its published configs.
_CONFIGS = {
    "fcn": ("fcn", "fcn"),
    "nl": ("nonlocal_net", "nonlocal"),
    "gc": ("gcnet", "gcnet"),
    "dnl": ("dnlnet", "dnl"),
    "ann": ("ann", "ann"),
}


def published_config(method: str, *, depth: int = 50, align_corners: bool = False) -> Config:
    """A published Cityscapes config; the 769x769 ones align corners."""
    folder, stem = _CONFIGS[method]
    crop = "769x769" if align_corners else "512x1024"
    name = f"{stem}_r{depth}-d8_4xb2-40k_cityscapes-{crop}.py"
    path = os.path.join(os.path.dirname(mmseg.__file__), ".mim", "configs", folder, name)
    config = Config.fromfile(path)
    for head in (config.model.decode_head, config.model.auxiliary_head):
        assert head.align_corners == align_corners
    return config


def build(
    method: str,
    *,
    depth: int = 50,
    align_corners: bool = False,
    num_classes: int = 19,
    dropout: float = 0.0,
    avg_non_ignore: bool = False,
    width: int = 64,
    seed: int = 0,
) -> EncoderDecoder:
    """A published model with :func:`random_weights`, BN for SyncBN, and whole-image inference.

    With ``width`` below 64, of the first stage's bottlenecks, all layers are as much narrower.
    """
    config = published_config(method, depth=depth, align_corners=align_corners).model
    config.pretrained = None
    config.test_cfg = dict(mode="whole")
    config.data_preprocessor.size = None
    config.data_preprocessor.size_divisor = 1
    config.backbone.norm_cfg.type = "BN"
    for head in (config.decode_head, config.auxiliary_head):
        head.update(norm_cfg=dict(type="BN"), num_classes=num_classes)
        head.loss_decode.avg_non_ignore = avg_non_ignore
    if width != 64:
        _narrow(config, width)
    preprocessor = MODELS.build(config.pop("data_preprocessor"))
    with torch.device("meta"):  # its own initialisation takes seconds and is not wanted
        model = MODELS.build(config)
    model.data_preprocessor = preprocessor
    model.load_state_dict(random_weights(model, seed=seed), assign=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = dropout  # its ANN head does not run with dropout_ratio=0
    return model.eval()


def _narrow(config: Config, width: int) -> None:
    config.backbone.update(base_channels=width, stem_channels=width)
    for head in (config.decode_head, config.auxiliary_head):
        for key in {"in_channels", "channels", "project_channels"} & set(head):
            value = head[key]
            many = isinstance(value, list | tuple)
            head[key] = [v * width // 64 for v in value] if many else value * width // 64


# Kernels that would saturate the attention (theta, phi, conv_mask, ...) or let what the block adds,
# which is much the same at all positions, decide the class of all pixels. The first match counts;
# DNL's temperature multiplies by 20.
_SMALLER = {
    "dnl_block.theta": 0.3,
    "dnl_block.phi": 0.3,
    "theta": 0.6,
    "phi": 0.6,
    "conv_mask": 0.1,
    "key_project": 0.3,
    "query_project": 0.3,
    "conv_out": 0.3,
    "out_project": 0.3,
}


def random_weights(model: torch.nn.Module, *, seed: int) -> dict[str, Tensor]:
    """Random values for every key, with attention neither uniform nor on a single position."""
    return weights.random_state(model, seed=seed, small="bn3", scales=_SMALLER)


def optimizer(model: EncoderDecoder) -> torch.optim.SGD:
    """The published optimiser."""
    options = dict(published_config("nl").optim_wrapper.optimizer)
    assert options.pop("type") == "SGD"
    return torch.optim.SGD(model.parameters(), **options)


def slide(model: EncoderDecoder, window: Sequence[int], stride: Sequence[int]) -> None:
    """Switches to sliding-window inference, or with an empty window to the whole image."""
    mode = "slide" if window else "whole"
    model.test_cfg = Config(dict(mode=mode, crop_size=window, stride=stride))


def predict(
    model: EncoderDecoder, image: Tensor, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """``(3, H, W)`` RGB image -> ``(K, *size)`` logits and ``(*size)`` label map."""
    height, width = image.shape[-2:]
    sample = SegDataSample(
        metainfo=dict(
            img_shape=(height, width), pad_shape=(height, width), ori_shape=size or (height, width)
        )
    )
    with torch.no_grad():  # mmsegmentation reads files as BGR
        (result,) = model.eval().test_step({"inputs": [image.flip(0)], "data_samples": [sample]})
    return result.seg_logits.data, result.pred_sem_seg.data[0]


def transforms(*options: dict) -> list[Callable[[dict], dict]]:
    """mmsegmentation's transforms, each from its type and options."""
    return [TRANSFORMS.build(option) for option in options]


def transformed(results: dict, pipeline: Sequence[Callable[[dict], dict]]) -> dict:
    """What the transforms make of ``results``, one after the other."""
    return functools.reduce(lambda r, transform: transform(r), pipeline, results)


def predict_file(
    model: EncoderDecoder, path: str, resizes: Sequence[dict], *, flip: bool
) -> tuple[Tensor, Tensor]:
    """A picture file -> ``(K, H, W)`` mean probabilities and ``(H, W)`` label map.

    Args:
        model: the segmentor, which SegTTAModel wraps.
        path: the picture.
        resizes: options of Resize, one set for each version of the picture.
        flip: whether the mirror images are predicted too.
    """
    versions = [
        transforms(*(dict(type="Resize", keep_ratio=True, **options) for options in resizes)),
        transforms(*(dict(type="RandomFlip", prob=float(mirror)) for mirror in range(1 + flip))),
        transforms(dict(type="PackSegInputs")),
    ]
    pipeline = transforms(
        dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=versions)
    )
    views = transformed({"img_path": path}, pipeline)
    tester = _KeepsProbabilities(model.eval())
    with torch.no_grad():
        (result,) = tester.test_step({key: [[v] for v in value] for key, value in views.items()})
    return tester.probabilities, result.pred_sem_seg.data


class _KeepsProbabilities(SegTTAModel):
    """What it merges is lost but for the label map."""

    def merge_preds(self, data_samples_list):
        (samples,) = data_samples_list
        self.probabilities = torch.stack([s.seg_logits.data.softmax(0) for s in samples]).mean(0)
        return super().merge_preds(data_samples_list)


def losses(model: EncoderDecoder, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``(N, 3, H, W)`` RGB images and ``(N, H, W)`` labels -> the losses, in training mode."""
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_shape=tuple(label.shape)))
        sample.gt_sem_seg = PixelData(data=label[None].long())
        samples.append(sample)
    batch = {"inputs": [image.flip(0) for image in images], "data_samples": samples}
    data = model.data_preprocessor(batch, training=True)
    found = model.train().loss(**data)
    return {name: value for name, value in found.items() if "loss" in name}
