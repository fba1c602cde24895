"""From a picture to what a model of this library says of it."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from detectron2.modeling import GeneralizedRCNN, SemanticSegmentor
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image

from dnl_d2 import model_zoo
from dnl_d2.checkpoint import Checkpointer
from dnl_d2.checkpoint.published_weights import of_recipe
from dnl_d2.data.images import image_tensor
from dnl_d2.engine import load_config
from dnl_d2.engine.multi_scale import check_multi_scale, detector_at_scales
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_model
from dnl_d2.errors import UsageError
from dnl_d2.modeling.optimize import optimize_for_inference
from dnl_d2.prediction.attention import AttentionMaps, look
from dnl_d2.prediction.results import Detections, Segmentation
from dnl_d2.prediction.sources import read_upright, upright


class Predictor:
    """Predicts pictures as the evaluation of a config does: sizes, windows, scales, mirror images.

    .. code-block:: python

        predict = Predictor("dnl_r50-d8_40k_cityscapes-512x1024", weights="dnl.pth")
        found = predict("street.jpg")
        Image.fromarray(found.draw()).save("drawn.png")
        labels = numpy.asarray(found)  # (H, W)

    Args:
        config: a recipe's name, see :func:`dnl_d2.model_zoo.list`; a YAML or LazyConfig file; or a
            loaded config of either kind.
        weights: a file of this library or of a public code base, an address, or a published file's
            name (``mmseg://...``); None for those of the config.
        device: ``cuda``, ``cpu``, ...; None for CUDA where there is one.
        overrides: for the config, as on the command line.
        min_score: objects below are left out; 0 to 1.
        precision: ``float32``, ``bfloat16`` or ``float16``, see
            :func:`dnl_d2.optimize_for_inference`; None for that of the config.

    Attributes:
        model: with its weights, in evaluation mode.
        mapper: what reads pictures as the evaluation does: its sizes and order of colours.
        multi_scale: the config's test at several scales; None if it asks for none.
        metadata: of the dataset, with names and colours of the classes.

    Raises:
        UsageError: no such recipe or file, a value that cannot be meant, weights that do not
            fill the model, or a precision that the device lacks.
    """

    def __init__(
        self,
        config: str | CfgNode | DictConfig,
        *,
        weights: str | None = None,
        device: str | None = None,
        overrides: Sequence[str] = (),
        min_score: float = 0.5,
        precision: str | None = None,
    ):
        if not 0 <= min_score <= 1:
            raise UsageError(f"a score is 0 to 1, and min_score is {min_score:g}")
        cfg = _loaded(config, overrides)
        spec = read_config(_on_device(cfg, device), train=False)
        self.min_score = min_score
        check_multi_scale(spec, spec.model_class)
        self.metadata = _metadata((*spec.test_sets, *spec.train_sets))
        self.model = build_model(spec).eval()
        if weights is None:
            _require_trained(config, overrides, key=spec.keys.weights)
        path = spec.weights if weights is None else weights
        key = spec.keys.weights if weights is None else "weights"
        checkpointer = Checkpointer(self.model, key=key, channel_order=spec.channel_order)
        checkpointer.load_whole(path, purpose="a prediction")
        precision = spec.eval_precision if precision is None else precision
        if precision != "float32":
            self.model = optimize_for_inference(self.model, precision=precision)
        self.mapper = spec.build_test_mapper()
        self.multi_scale = spec.multi_scale
        scales = spec.multi_scale.detectors if spec.multi_scale else None
        check_multi_scale(spec, type(self.model))
        if scales and isinstance(self.model, GeneralizedRCNN):
            self.model = detector_at_scales(self.model, scales)

    def __call__(self, image: str | os.PathLike | Image.Image | np.ndarray) -> Any:
        """Predicts a picture.

        Args:
            image: a path, a Pillow picture of any mode (both turned by their EXIF entry), or an
                array: ``(H, W, 3)`` or ``(H, W)`` uint8, RGB.

        Returns:
            :class:`~dnl_d2.prediction.results.Segmentation` or
            :class:`~dnl_d2.prediction.results.Detections`.

        Raises:
            UsageError: the file cannot be read, the array is of another kind, or the model predicts
                something else.
        """
        rgb = _as_rgb(image)
        with torch.inference_mode():
            (output,) = self.model([self._inputs(rgb)])
        result = self._result(rgb, output)
        if result is None:
            raise UsageError(
                f"the model predicts {', '.join(output)}: only segmentors (sem_seg) and detectors "
                "(instances) are drawn"
            )
        return result

    def attention(self, image: str | os.PathLike | Image.Image | np.ndarray) -> AttentionMaps:
        """Where the model's context blocks look in a picture.

        The model runs once, on the whole picture at the size of the evaluation, also where the
        config slides a window or averages over scales and mirror images: then a prediction is not
        made of these maps alone.

        Args:
            image: as in :meth:`__call__`.

        Raises:
            UsageError: as in :meth:`__call__`, or the model runs no context block.
        """
        rgb = _as_rgb(image)
        inputs = self._inputs(rgb, at_scales=False)
        return look(self.model, rgb, inputs, lambda output: self._result(rgb, output))

    @property
    def is_whole(self) -> bool:
        """Whether a prediction is of the whole picture, once: then ``attention()`` has it too."""
        return not self.multi_scale and not getattr(self.model, "slide_window", ())

    def attention_blocks(self) -> dict[str, tuple[str, ...]]:
        """The context blocks that a prediction runs, and their terms, as in ``attention().blocks``.

        Found with a small grey picture, and so in little time.
        """
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        return look(self.model, grey, {"image": image_tensor(grey), **_size(grey)}).blocks

    @property
    def classes(self) -> list[str]:
        """Names of the model's classes."""
        if isinstance(self.model, SemanticSegmentor):
            known, count = "stuff_classes", getattr(self.model.sem_seg_head, "num_classes", 0)
        else:
            known, heads = "thing_classes", getattr(self.model, "roi_heads", self.model)
            count = getattr(heads, "num_classes", 0)
        return _names(self.metadata.get(known, None), count)

    def _result(self, rgb: np.ndarray, output: dict[str, Any]) -> Segmentation | Detections | None:
        """What the model's output says; None if it is neither a label map nor objects."""
        if {*output} == {"instances"}:
            return self._detections(rgb, output["instances"].to("cpu"))
        if {*output} != {"sem_seg"}:
            return None
        labels = output["sem_seg"].argmax(0).to("cpu", torch.int64).numpy()
        names = _names(self.metadata.get("stuff_classes", None), len(output["sem_seg"]))
        return Segmentation(rgb, labels, names, self.metadata.get("stuff_colors", None))

    def _inputs(self, rgb: np.ndarray, *, at_scales: bool = True) -> dict[str, Any]:
        """What the mapper of the evaluation makes of a file with this picture.

        Without ``at_scales`` what it would make of it for a test at a single scale.
        """
        mapper = self.mapper
        image = rgb if mapper.image_format == "RGB" else rgb[:, :, ::-1]
        image = np.require(image, requirements=["C", "W"])  # PyTorch warns of what is read-only
        size = _size(image)
        views = getattr(mapper, "multi_scale_flip", None)
        if at_scales and views is not None and views.enabled:
            return size | views.model_inputs(image)
        augmented = T.AugInput(image)
        try:
            mapper.augmentations(augmented)
        except ValueError as error:  # of Pillow, for a side of no pixels
            raise UsageError(
                f"a picture of {size['height']} rows and {size['width']} columns cannot be resized "
                f"as in the evaluation ({error}): it is too narrow"
            ) from error
        return size | {"image": image_tensor(augmented.image)}

    def _detections(self, rgb: np.ndarray, instances: Instances) -> Detections:
        found = instances[instances.scores >= self.min_score]
        count = int(found.pred_classes.max()) + 1 if len(found) else 0
        names = _names(self.metadata.get("thing_classes", None), count)
        return Detections(rgb, found, names, self.metadata)


def _loaded(config: str | CfgNode | DictConfig, overrides: Sequence[str]) -> CfgNode | DictConfig:
    if isinstance(config, (CfgNode, DictConfig)):
        if overrides:
            raise UsageError("overrides go with a file or a name: change the loaded config itself")
        return config
    path = os.fspath(config)
    if not os.path.exists(path):
        try:
            path = model_zoo.get_config_file(path)
        except UsageError as error:
            raise UsageError(f"there is no config file {config}; {error}") from error
    return load_config(path, overrides)


def _require_trained(config: Any, overrides: Sequence[str], *, key: str) -> None:
    """Refuses what a recipe's training starts from, where trained weights are published."""
    recipe = model_zoo.find_recipe(config) if isinstance(config, str) else None
    file = of_recipe(recipe) if recipe else None
    if file and not any(override.startswith(key) for override in overrides):
        raise UsageError(
            f"a prediction needs trained weights, and {key} of {recipe} names those that training "
            f"starts from: give yours as weights, or the published {file.name}"
        )


def _on_device(cfg: CfgNode | DictConfig, device: str | None) -> CfgNode | DictConfig:
    cfg = cfg.clone() if isinstance(cfg, CfgNode) else cfg.copy()
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(cfg, CfgNode):
        cfg.defrost()
        cfg.MODEL.DEVICE = wanted
        cfg.freeze()
    else:
        cfg.train.device = wanted
    return cfg


def _metadata(names: Sequence[str]) -> Metadata:
    """Of the first dataset that names its classes; an empty one where there is none."""
    known = [MetadataCatalog.get(name) for name in names]
    named = [meta for meta in known if meta.get("stuff_classes") or meta.get("thing_classes")]
    return (named or known or [Metadata()])[0]


def _names(known: Sequence[str] | None, count: int) -> list[str]:
    """Names of at least ``count`` classes: those of the dataset, or numbers."""
    names = list(known or ())
    return names + [f"class {number}" for number in range(len(names), count)]


def _size(image: np.ndarray) -> dict[str, int]:
    return {"height": image.shape[0], "width": image.shape[1]}


def _as_rgb(image: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(image, (str, os.PathLike)):
        return read_upright(os.path.expanduser(os.fspath(image)))
    if isinstance(image, Image.Image):
        return upright(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        raise UsageError(
            f"an array of {array.dtype} and shape {array.shape} is no picture: give (H, W, 3) RGB "
            "or (H, W) grey in uint8"
        )
    if array.ndim == 2:
        array = array[..., None].repeat(3, axis=2)
    if array.shape[2] != 3:
        raise UsageError(f"an array with {array.shape[2]} channels: give (H, W, 3) RGB in uint8")
    return array
