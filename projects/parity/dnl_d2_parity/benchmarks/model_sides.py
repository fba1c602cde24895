"""A config's segmentation model and its reference with the same weights, ready for a pass."""

import argparse
from collections.abc import Callable

import torch
from detectron2.modeling import SemanticSegmentor
from torch import Tensor, nn

from dnl_d2 import optimize_for_inference
from dnl_d2.checkpoint import convert, detect_source
from dnl_d2.checkpoint.convert import compare
from dnl_d2.engine.environment import fit_sync_batch_norm
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS
from dnl_d2.modeling import AsymmetricHead, ContextHead, ContextSegmentor
from dnl_d2.modeling.compilation import compile_parts
from dnl_d2.modeling.from_config import build_from_config
from dnl_d2.modeling.memory_format import weights_channels_last
from dnl_d2_parity.references.weights import random_state

# What a pass returns: logits of the image, or the loss of the batch.
Run = Callable[[], Tensor]
# The block of a head -> mmsegmentation's method; residual blocks -> depth.
_METHODS = {CONTEXT_BLOCKS.get(name): name for name in ("nl", "gc", "dnl")} | {type(None): "fcn"}
_DEPTHS = {16: 50, 33: 101}


def build(args: argparse.Namespace) -> SemanticSegmentor:
    """The config's model, on the CPU."""
    model = build_from_config(args.config_file, args.opts, device="cpu")
    if not isinstance(model, SemanticSegmentor):
        raise UsageError(
            f"{args.config_file}: {type(model).__name__} is no segmentation model, which is what "
            "this tool times"
        )
    model.pad_size = (0, 0)  # to time images of --size, not of the crop that training pads to
    return fit_sync_batch_norm(model, args.device)


def build_reference(args: argparse.Namespace, model: SemanticSegmentor) -> nn.Module:
    """mmsegmentation's model like ``model`` with random weights, which ``model`` gets too."""
    from dnl_d2_parity.references import mmseg

    head, stages = model.sem_seg_head, getattr(model.backbone, "stages", [])
    block = type(getattr(head, "context_block", None))
    method = "ann" if isinstance(head, AsymmetricHead) else _METHODS.get(block)
    depth = _DEPTHS.get(sum(len(stage) for stage in stages))
    ours = isinstance(model, ContextSegmentor) and isinstance(head, ContextHead | AsymmetricHead)
    if not (ours and method and depth):
        raise UsageError(
            f"{args.config_file}: mmsegmentation publishes no such model (it has R-50-D8 and "
            "R-101-D8 with FCN, NL, GC, DNL and ANN heads); use --reference plain"
        )
    reference = mmseg.build(
        method,
        depth=depth,
        align_corners=head.align_corners,
        num_classes=head.num_classes,
        dropout=head.dropout.p,
        avg_non_ignore=head.loss.average == "valid",
    )
    mmseg.slide(reference, model.slide_window, model.slide_stride)
    state = reference.state_dict()
    weights = convert(state, detect_source(state)).state
    found = compare(weights, model.state_dict())
    wrong = [*found.missing, *found.mismatched, *found.unexpected]
    if wrong:
        raise UsageError(
            f"{args.config_file}: not the published {method} R-{depth}-D8: {len(wrong)} parameters "
            f"are others there, such as {wrong[0]!r}; use --reference plain"
        )
    model.load_state_dict(weights)
    return reference


def prepare(side: str, args: argparse.Namespace) -> Run:
    """The pass of one side: ``ours`` or ``reference``."""
    model = build(args)
    if args.reference == "mmseg":
        reference = build_reference(args, model)
    else:
        model.load_state_dict(random_state(model, small="conv3.norm"))
        reference = model
    chosen = (model if side == "ours" else reference).to(args.device)
    tuned = side == "ours" and args.tuned
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (args.batch, 3, *args.size), generator=generator, dtype=torch.uint8)
    published = chosen is not model
    if args.training:
        classes = model.sem_seg_head.num_classes
        labels = torch.randint(classes, (args.batch, *args.size), generator=generator)
        if tuned:
            images = tune(chosen, images)
        return training_step(chosen, published, images, labels, fused=tuned)
    if side == "ours" and args.optimize:
        chosen = optimize_for_inference(chosen, precision=args.precision)
    if side == "reference" and args.reference == "optimized":
        chosen = optimize_for_inference(chosen)
    return inference(chosen.eval(), published, images[0])


def inference(model: nn.Module, published: bool, image: Tensor) -> Run:
    """A function that predicts the ``(3, H, W)`` image and returns its logits."""

    def run() -> Tensor:
        if published:  # makes the label map itself
            from dnl_d2_parity.references import mmseg

            return mmseg.predict(model, image)[0]
        with torch.no_grad():
            logits = model([{"image": image}])[0]["sem_seg"]
            logits.argmax(0)
        return logits

    return run


def tune(model: nn.Module, images: Tensor) -> Tensor:
    """Has a model trained faster with the same results up to rounding; returns its images.

    Channels-last, cuDNN's fastest kernels for these sizes, compiled, images in pinned memory.
    """
    weights_channels_last(model)
    torch.backends.cudnn.benchmark = True
    compile_parts(model)
    return images.pin_memory() if next(model.parameters()).is_cuda else images


def training_step(
    model: nn.Module, published: bool, images: Tensor, labels: Tensor, *, fused: bool = False
) -> Run:
    """A function that trains on the batch once, with a fused SGD or not, and returns the loss."""
    # Small steps: what is timed should stay the same model.
    options = dict(lr=1e-5, momentum=0.9, weight_decay=5e-4, fused=fused or None)
    optimizer = torch.optim.SGD(model.parameters(), **options)
    batch = [{"image": x, "sem_seg": y} for x, y in zip(images, labels, strict=True)]
    torch.manual_seed(0)

    def run() -> Tensor:
        if published:
            from dnl_d2_parity.references import mmseg

            device = next(model.parameters()).device
            losses = mmseg.losses(model, images, labels.to(device))
        else:
            losses = model.train()(batch)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.detach()

    return run
