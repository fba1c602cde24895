"""A segmentation model as one graph, from a batch of pictures to logits, for use elsewhere."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dnl_d2.errors import UsageError
from dnl_d2.export.formats.torch_export import exported_program
from dnl_d2.export.graph import EXAMPLE_SIZE, Graph
from dnl_d2.layers.common import check_count
from dnl_d2.modeling import ContextSegmentor


class LogitsOfImages(nn.Module):
    """A segmentor as a function of tensors: what exporters and compilers take.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: ContextSegmentor):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """See :meth:`dnl_d2.modeling.ContextSegmentor.logits`."""
        return self.model.logits(images)


def export_segmentor(
    model: ContextSegmentor,
    *,
    size: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> ExportedProgram:
    """Exports a segmentor by :func:`torch.export.export`, in non-strict mode.

    The program takes ``images`` ``(N, C, H, W)``, any number of one size, as the model's mapper
    gives them (0 to 255, channels in the order of INPUT.FORMAT), and returns logits
    ``(N, K, H, W)``; normalisation and padding are part of it. It runs on the model's device.
    ``torch.export.save`` writes it, and where it is loaded PyTorch is enough.

    Args:
        model: in evaluation mode, such as a copy of ``optimize_for_inference``.
        size: (height, width) of every picture; default any. Sliding windows need it, and their
            program takes one picture at a time.
        dtype: of the pictures, such as ``torch.uint8``.

    Raises:
        UsageError: another model, one in training mode, a size that is none, or sliding windows
            without a size.
    """
    return exported_program(segmentor_graph(model, size=size, dtype=dtype))


def segmentor_graph(
    model: nn.Module, *, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
) -> Graph:
    """The graph of a segmentor; arguments and errors as of :func:`export_segmentor`."""
    if not isinstance(model, ContextSegmentor):
        raise UsageError(
            f"export_segmentor takes a ContextSegmentor, got {type(model).__name__}: set "
            "MODEL.META_ARCHITECTURE to ContextSegmentor, or export with Detectron2's own tools"
        )
    if model.training:
        raise UsageError("export_segmentor: the model is in training mode, call model.eval() first")
    if size is not None:
        check_size(size)
    elif model.slide_window:
        raise UsageError(
            f"windows of {model.slide_window} slide over pictures of one size: give the export its "
            "size (height, width), or empty TEST.SLIDE (model.slide_window)"
        )
    axes = {} if size else {2: "height", 3: "width"}
    if not model.slide_window:
        axes[0] = "number"
    shape = 1 if model.slide_window else 2, len(model.pixel_mean), *(size or EXAMPLE_SIZE)
    example = torch.zeros(shape, dtype=dtype, device=model.device)
    module = LogitsOfImages(model).eval()
    return Graph("segmentation", module, example, "images", axes, {"logits": axes})


def check_size(size: Sequence[int]) -> None:
    """Raises :class:`UsageError` unless ``size`` is a height and a width."""
    if not isinstance(size, Sequence) or len(size) != 2:
        raise UsageError(f"size is (height, width), not {size!r}")
    check_count(height=size[0], width=size[1])
