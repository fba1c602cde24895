"""A segmentation model as one graph, from a batch of pictures to logits, for use elsewhere."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.errors import UsageError
from dnl_d2.layers.common import check_count
from dnl_d2.modeling import ContextSegmentor

# Of the pictures that are traced: no size is that of another axis, or a multiple of a stride.
_EXAMPLE = (203, 317)


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
    ``torch.export.save`` writes it. Where it is loaded PyTorch is enough, unless the graph has the
    operator ``dnl_d2::chunked_attention`` (values wider than keys): then ``import dnl_d2.layers``.

    Args:
        model: in evaluation mode, such as a copy of ``optimize_for_inference``.
        size: (height, width) of every picture; default any. Sliding windows need it, and their
            program takes one picture at a time.
        dtype: of the pictures, such as ``torch.uint8``.

    Raises:
        UsageError: another model, one in training mode, a size that is none, or sliding windows
            without a size.
    """
    if not isinstance(model, ContextSegmentor):
        raise UsageError(
            f"export_segmentor takes a ContextSegmentor, got {type(model).__name__}: set "
            "MODEL.META_ARCHITECTURE to ContextSegmentor, or export with Detectron2's own tools"
        )
    if model.training:
        raise UsageError("export_segmentor: the model is in training mode, call model.eval() first")
    if size is not None:
        _check_size(size)
    elif model.slide_window:
        raise UsageError(
            f"windows of {model.slide_window} slide over pictures of one size: give "
            "export_segmentor its size=(height, width), or empty TEST.SLIDE (model.slide_window)"
        )
    count, free = (1, ()) if model.slide_window else (2, (0,) if size else (0, 2, 3))
    shape = count, len(model.pixel_mean), *(size or _EXAMPLE)
    images = torch.zeros(shape, dtype=dtype, device=model.device)
    dynamic = (dict.fromkeys(free, Dim.DYNAMIC),)
    with torch.no_grad():
        return torch.export.export(
            LogitsOfImages(model).eval(), (images,), dynamic_shapes=dynamic, strict=False
        )


def _check_size(size: Sequence[int]) -> None:
    if not isinstance(size, Sequence) or len(size) != 2:
        raise UsageError(f"export_segmentor: size is (height, width), not {size!r}")
    check_count(height=size[0], width=size[1])
