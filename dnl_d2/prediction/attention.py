"""Where the context blocks of a model look in a picture."""

import contextlib
import copy
import inspect
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.modeling import GeneralizedRCNNWithTTA
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock
from dnl_d2.layers.context_block import AttentionRows, choices
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.modeling.compilation import uncompiled
from dnl_d2.prediction.results import Detections, Segmentation
from dnl_d2.visualization import overlay

_logger = logging.getLogger(__name__)
TERMS = ("pairwise", "whitened", "unary")
Pixel = tuple[int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class _Block:
    """What a block has read of one picture.

    Args:
        rows: see :meth:`dnl_d2.layers.ContextBlock.attention_rows`.
        size: (height, width) of the map whose cells are the queries.
        sizes: by term, (height, width) of the map that the weights lie on.
        shared: the terms that are the same for every query.
    """

    rows: AttentionRows
    size: Size
    sizes: Mapping[str, Size]
    shared: frozenset[str]


@dataclass(frozen=True)
class _Frame:
    """Sizes (height, width) of a picture on its way to a feature map.

    Args:
        picture: as it came.
        resized: as the model sees it.
        padded: with the zeros below and on the right that the backbone needs.
    """

    picture: Size
    resized: Size
    padded: Size

    def cells(self, size: Size) -> tuple[float, float]:
        """Rows and columns, with fractions, that the picture covers of a map of ``size``.

        A map's cells divide the padded picture evenly, as where logits are resized without aligned
        corners; with these a cell may lie up to half its side elsewhere.
        """
        height, width = (
            cells * inner / outer
            for cells, inner, outer in zip(size, self.resized, self.padded, strict=True)
        )
        return height, width

    def cell(self, pixel: Pixel, size: Size) -> Pixel:
        """The cell of a map of ``size`` in which the centre of a pixel lies."""
        row, column = (
            min(int((at + 0.5) * cells / side), math.ceil(cells) - 1)
            for at, cells, side in zip(pixel, self.cells(size), self.picture, strict=True)
        )
        return row, column


class AttentionMaps:
    """What the context blocks of a model read of one picture, to ask where they look.

    Made by :meth:`dnl_d2.Predictor.attention`. A block has some of three terms. Of a softmax of
    products, as in NL and DNL, they are (arXiv 2006.06668, eq. 3 to 6; i is the pixel asked for)

    * ``pairwise``: softmax_j(q_i.k_j), as the non-local block computes it;
    * ``whitened``: softmax_j((q_i - mu_q).(k_j - mu_k)), which DNL computes with in its place;
    * ``unary``: what all pixels share: softmax_j(mu_q.k_j), which is hidden in the first, or
      DNL's own softmax_j(m_j), which it adds to the second.

    GC and SNL have ``unary`` alone, and ``pairwise`` alone have NL without a softmax, APNB and AFNB
    (of which a sample's weight is shared out among the cells that it is the mean of). Weights carry
    the block's own factor (1 / sqrt(C') and the temperature), sum to 1 over the whole feature map,
    padding included where the block does not mask it, and are negative only for
    ``mode="dot_product"``.

    Attributes:
        image: the picture, ``(H, W, 3)`` uint8 RGB.
        blocks: the terms of each block by its name in the model, in the order in which the model
            runs them. A block that runs more than once has the maps of its first run.
        prediction: what the model says of the picture when it sees it so: whole, once.
    """

    def __init__(
        self,
        image: np.ndarray,
        frame: _Frame,
        blocks: Mapping[str, _Block],
        prediction: Segmentation | Detections | None = None,
    ):
        self.image = image
        self.blocks = {name: tuple(block.sizes) for name, block in blocks.items()}
        self.prediction = prediction
        self._frame = frame
        self._blocks = dict(blocks)

    @property
    def main_block(self) -> str:
        """The block nearest the result: the head's, or the backbone's last."""
        return list(self.blocks)[-1]

    def needs_pixel(self, block: str, term: str) -> bool:
        """Whether the map differs from pixel to pixel."""
        return term not in self._known(block, term).shared

    @torch.inference_mode()
    def map(self, block: str, term: str, pixel: Pixel | None = None) -> np.ndarray:
        """One attention map; time and memory are linear in the number of cells.

        Args:
            block: one of ``blocks``.
            term: one of the block's.
            pixel: (row, column) of the picture; not needed where all pixels share the map.

        Returns:
            ``(H', W')`` float32 weights of the feature map's cells that lie on the picture.

        Raises:
            UsageError: there is no such block, term or pixel; a pixel is needed; or weights are not
                finite.
        """
        known = self._known(block, term)
        if pixel is None:
            if self.needs_pixel(block, term):
                raise UsageError(
                    f"the {term} map of {block} is that of a pixel: give (row, column)"
                )
            cell = (0, 0)
        else:
            self.check_pixel(pixel)
            cell = self._frame.cell(pixel, known.size)
        weights = known.rows([cell])[term][0]
        if weights.dim() == 3:
            weights = weights[0]
        height, width = map(math.ceil, self._frame.cells(known.sizes[term]))
        weights = weights[:height, :width].float()
        if not weights.isfinite().all():
            raise UsageError(
                f"the {term} map of {block} is not finite (inf or nan): the model has diverged, or "
                "its numbers outgrow their precision"
            )
        return weights.cpu().numpy()

    def overlay(self, block: str, term: str, pixel: Pixel | None = None) -> np.ndarray:
        """The map over the picture, ``(H, W, 3)`` uint8; see :func:`dnl_d2.visualization.overlay`.

        Cells lie where they are, also where the last of them is cut by the picture's border.
        """
        weights = self.map(block, term, pixel)
        extent = self._frame.cells(self._blocks[block].sizes[term])
        return overlay(self.image, weights, extent=extent)

    def _known(self, block: str, term: str) -> _Block:
        if block not in self.blocks:
            raise UsageError(
                f"the model has no context block {block!r}; {choices(block, list(self.blocks))}"
            )
        if term not in self.blocks[block]:
            raise UsageError(
                f"{block} has no {term!r} map; {choices(term, list(self.blocks[block]))}"
            )
        return self._blocks[block]

    def check_pixel(self, pixel: Pixel) -> None:
        """Raises a UsageError unless (row, column) lies in the picture."""
        height, width = self.image.shape[:2]
        row, column = pixel
        if not (0 <= row < height and 0 <= column < width):
            raise UsageError(
                f"pixel {row},{column} (row, column) is outside the picture of {height} rows and "
                f"{width} columns"
            )


def look(
    model: nn.Module,
    image: np.ndarray,
    inputs: Mapping[str, Any],
    predicted: Callable[[Any], Segmentation | Detections | None] = lambda output: None,
) -> AttentionMaps:
    """Runs a model on a picture once and keeps what its context blocks read.

    Args:
        model: a segmentor or detector, in evaluation mode. Of a
            :class:`~dnl_d2.modeling.ContextSegmentor` windows, scales and mirror images are left
            aside, and likewise of Detectron2's test of detectors at several scales.
        image: the picture as it came, ``(H, W, 3)`` uint8 RGB.
        inputs: as Detectron2's models take them: the picture as ``"image"``, ``(C, H', W')``, and
            ``"height"`` and ``"width"``.
        predicted: what the model's output says.

    Raises:
        UsageError: the model runs no context block on the picture, or none that shows its maps.
    """
    model = predicting_once(model)
    padded: list[Size] = []
    with uncompiled(), _watching(model, padded) as blocks, torch.inference_mode():
        (output,) = model([dict(inputs)])
    if not blocks:
        raise UsageError(
            f"the {type(model).__name__} runs no context block that has attention to show: choose "
            "a model with one, such as dnl_*, nl_*, gc_* or ann_* of dnl_d2.model_zoo.list()"
        )
    height, width = inputs["image"].shape[-2:]
    frame = _Frame(image.shape[:2], (height, width), padded[0] if padded else (height, width))
    return AttentionMaps(image, frame, blocks, predicted(output))


def predicting_once(model: nn.Module) -> nn.Module:
    """The model that predicts a picture whole and at one scale; its parts are shared.

    Of what :func:`torch.compile` returns it is the model that was compiled.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, GeneralizedRCNNWithTTA):
        return model.model
    if not isinstance(model, ContextSegmentor):
        return model
    once = copy.copy(model)
    once.slide_window, once.multi_scale_flip = (), None
    return once


@contextlib.contextmanager
def _watching(model: nn.Module, padded: list[Size]) -> Iterator[dict[str, _Block]]:
    """Fills the dict with blocks by name, and ``padded``, while the model runs.

    Other threads may run the same model meanwhile.
    """
    thread, blocks = threading.get_ident(), dict[str, _Block]()

    def reading(name: str) -> Callable[..., None]:
        def hook(block: ContextBlock, args: tuple, options: dict) -> None:
            if threading.get_ident() == thread and name not in blocks:
                found = _read(name, block, args, options)
                if found is not None:
                    blocks[name] = found

        return hook

    def measuring(_: nn.Module, args: tuple) -> None:
        if threading.get_ident() == thread:
            padded.append(tuple(args[0].shape[-2:]))

    handles = [
        module.register_forward_pre_hook(reading(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, ContextBlock)
    ]
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        handles.append(backbone.register_forward_pre_hook(measuring))
    try:
        yield blocks
    finally:
        for handle in handles:
            handle.remove()


def _read(name: str, block: ContextBlock, args: tuple, options: dict) -> _Block | None:
    """What a call of a block reads; None if it has no maps of a picture."""
    given = inspect.signature(block.forward).bind(*args, **options).arguments
    (_, x), *others = given.items()
    if not isinstance(x, Tensor) or x.dim() != 4 or len(x) != 1:
        return None  # cut-outs of a picture, or no picture at all
    try:
        rows = block.attention_rows(x, **{k: v for k, v in others if v is not None})
        maps = rows([(0, 0)])
    except UsageError as error:
        _logger.warning("%s is left out: %s", name, error)
        return None
    order = [*filter(maps.__contains__, TERMS), *(term for term in maps if term not in TERMS)]
    sizes = {term: (maps[term].shape[-2], maps[term].shape[-1]) for term in order}
    shared = frozenset(term for term in order if maps[term].dim() == 3)
    return _Block(rows, (x.shape[2], x.shape[3]), sizes, shared)
