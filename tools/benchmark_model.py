#!/usr/bin/env python
"""Times a config's segmentation model beside a reference model with the same weights.

Inference goes from an 8-bit image to a label map, after dnl_d2.optimize_for_inference unless
--no-optimize is given; a training step is forward, losses, backward and SGD. Each model lives in a
process of its own, and the two run in turns. Memory is what a process takes at most beyond what it
held before its first pass: of the GPU, or of the machine (Linux only).

Examples:
    tools/benchmark_model.py --config-file configs/....yaml --size 512 1024 --threads 2
    tools/benchmark_model.py --config-file configs/....yaml --training --batch 2 --device cuda
    tools/benchmark_model.py --config-file configs/....py --reference plain --output speed.json
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np
import torch
from detectron2.modeling import SemanticSegmentor
from tabulate import tabulate
from torch import Tensor, nn

# The reference models are part of the tests.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measuring import PeakMemory, hardware, summary, synchronize

from dnl_d2 import optimize_for_inference
from dnl_d2.checkpoint import convert, detect_source
from dnl_d2.checkpoint.convert import compare
from dnl_d2.engine import load_config
from dnl_d2.engine.prepare import plain_batch_norm_if_alone
from dnl_d2.errors import UsageError, one_line
from dnl_d2.files import write_text
from dnl_d2.layers.common import check_count
from dnl_d2.modeling import AsymmetricHead, ContextHead, ContextSegmentor
from dnl_d2.modeling.from_config import build_from_config

# What a pass returns: logits of the image, or the loss of the batch.
Run = Callable[[], Tensor]
# Short name of a head's block -> mmsegmentation's method; residual blocks -> depth.
_METHODS = {
    "NonLocalBlock": "nl",
    "GlobalContextBlock": "gc",
    "DisentangledNonLocalBlock": "dnl",
    "NoneType": "fcn",
}
_DEPTHS = {16: 50, 33: 101}
# Largest relative difference between outputs of the same model: TF32 on GPUs, bfloat16.
_BARS = {"cpu": 1e-3, "cuda": 1e-2, "autocast": 1e-1}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML or LazyConfig")
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024], metavar=("H", "W"))
    parser.add_argument("--runs", type=int, default=5, help="timed passes of each (default 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--optimize",
        action=argparse.BooleanOptionalAction,
        help="optimize_for_inference on the config's model (default: in inference)",
    )
    parser.add_argument("--training", action="store_true", help="time a training step")
    parser.add_argument("--batch", type=int, help="images per training step (default 2)")
    parser.add_argument("--autocast", action="store_true", help="both models in bfloat16 autocast")
    parser.add_argument(
        "--reference",
        choices=("mmseg", "plain"),
        default="mmseg",
        help="mmsegmentation's published model, or the config's own without --optimize",
    )
    parser.add_argument("--output", metavar="FILE.json", help="also write the figures there")
    parser.add_argument("opts", nargs="*", metavar="OVERRIDE", help="overrides of the config")
    return parser.parse_intermixed_args(argv)


def check(args: argparse.Namespace) -> None:
    """Fills in defaults; raises :class:`UsageError` before any process starts."""
    if args.training and args.optimize:
        raise UsageError("--optimize is for inference: leave it out, or --training")
    if args.batch is not None and not args.training:
        raise UsageError("--batch is for --training; inference takes one image at a time")
    if args.training and args.reference == "plain":
        raise UsageError("--reference plain has nothing to compare in --training")
    args.optimize = not args.training if args.optimize is None else args.optimize
    args.batch = 2 if args.batch is None else args.batch
    numbers = {"--runs": args.runs, "--batch": args.batch}
    numbers |= {"--size height": args.size[0], "--size width": args.size[1]}
    check_count(**numbers if args.threads is None else numbers | {"--threads": args.threads})
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no CUDA device here")
    if args.reference == "mmseg" and importlib.util.find_spec("mmseg") is None:
        raise UsageError(
            "the reference needs mmsegmentation: pip install --no-deps -r requirements/parity.txt, "
            "or --reference plain"
        )
    folder = os.path.dirname(os.path.abspath(args.output or "x"))
    if not os.path.isdir(folder):
        raise UsageError(f"--output {args.output}: there is no folder {folder}")
    if args.output and os.path.isdir(args.output):
        raise UsageError(f"--output {args.output}: a folder, not a file")
    load_config(args.config_file, args.opts)


def build(args: argparse.Namespace) -> SemanticSegmentor:
    """The config's model, on the CPU."""
    model = build_from_config(args.config_file, args.opts, device="cpu")
    if not isinstance(model, SemanticSegmentor):
        raise UsageError(
            f"{args.config_file}: {type(model).__name__} is no segmentation model, which is what "
            "this tool times"
        )
    model.pad_size = (0, 0)  # to time images of --size, not of the crop that training pads to
    return plain_batch_norm_if_alone(model, args.device)


def build_reference(args: argparse.Namespace, model: SemanticSegmentor) -> nn.Module:
    """mmsegmentation's model like ``model`` with random weights, which ``model`` gets too."""
    from tests.reference import mmseg

    head, stages = model.sem_seg_head, getattr(model.backbone, "stages", [])
    block = type(getattr(head, "context_block", None)).__name__
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
        from tests.reference.weights import random_state

        model.load_state_dict(random_state(model, small="conv3.norm"))
        reference = model
    chosen = (model if side == "ours" else reference).to(args.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (args.batch, 3, *args.size), generator=generator, dtype=torch.uint8)
    published = chosen is not model
    if args.training:
        classes = model.sem_seg_head.num_classes
        labels = torch.randint(classes, (args.batch, *args.size), generator=generator)
        return _training(chosen, published, images, labels)
    if side == "ours" and args.optimize:
        chosen = optimize_for_inference(chosen)
    return _inference(chosen.eval(), published, images[0])


def _inference(model: nn.Module, published: bool, image: Tensor) -> Run:
    height, width = image.shape[-2:]

    def run() -> Tensor:
        if published:  # makes the label map itself
            from tests.reference import mmseg

            return mmseg.predict(model, image)[0]
        with torch.no_grad():
            logits = model([{"image": image, "height": height, "width": width}])[0]["sem_seg"]
            logits.argmax(0)
        return logits

    return run


def _training(model: nn.Module, published: bool, images: Tensor, labels: Tensor) -> Run:
    # Small steps: what is timed should stay the same model.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=5e-4)
    batch = [{"image": x, "sem_seg": y} for x, y in zip(images, labels, strict=True)]
    torch.manual_seed(0)

    def run() -> Tensor:
        if published:
            from tests.reference import mmseg

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


def serve(side: str, args: argparse.Namespace, pipe: Connection) -> None:
    """A process: builds one side, then answers every message with the figures of one pass."""
    warnings.simplefilter("ignore")  # mmsegmentation about itself
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        run, output = prepare(side, args), None
        pipe.send({"threads": torch.get_num_threads()})
        memory = PeakMemory(args.device)
        while pipe.recv():
            with torch.autocast(args.device, torch.bfloat16, enabled=args.autocast):
                start = time.perf_counter()
                result = run()
                synchronize(args.device)
                seconds = time.perf_counter() - start
            answer = {"seconds": seconds, "mib": memory.mib()}
            if output is None:
                answer["output"] = output = result.float().cpu().numpy()
            pipe.send(answer)
            del result
    except UsageError as error:
        with contextlib.suppress(OSError):  # nobody listens: the other side has failed already
            pipe.send({"error": one_line(error)})
    except EOFError:  # the other process failed, and with it the benchmark
        pass
    except Exception:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            pipe.send({"error": f"{side}: see the traceback above"})


@contextlib.contextmanager
def process(side: str, args: argparse.Namespace) -> Iterator[Callable[..., dict]]:
    """A function that asks for one pass; the first call without argument waits for the start."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=serve, args=(side, args, there), daemon=True)
    child.start()
    there.close()

    def ask(message: bool | None = None) -> dict:
        try:
            if message is not None:
                here.send(message)
            answer = here.recv()
        except (EOFError, BrokenPipeError):
            child.join()
            raise UsageError(
                f"the process of {side} ended with status {child.exitcode}: out of memory? "
                "Try a smaller --size or --batch"
            ) from None
        if "error" in answer:
            raise UsageError(answer["error"])
        return answer

    try:
        yield ask
    finally:
        here.close()
        child.join()


def measure(args: argparse.Namespace) -> dict:
    """Runs both sides in turns and returns every figure."""
    with process("ours", args) as ours, process("reference", args) as reference:
        asks = {"ours": ours, "reference": reference}
        threads = [ask()["threads"] for ask in asks.values()]
        first = {side: ask(True)["output"] for side, ask in asks.items()}
        answers = {side: [] for side in asks}
        for _ in range(args.runs):
            for side, ask in asks.items():
                answers[side].append(ask(True))
    seconds = {side: [a["seconds"] for a in found] for side, found in answers.items()}
    memory = {side: found[-1]["mib"] for side, found in answers.items()}
    pairs = zip(seconds["reference"], seconds["ours"], strict=True)
    return {
        **{k: v for k, v in vars(args).items() if k != "output"},
        "hardware": hardware(args.device, threads[0]),
        "difference": relative(first["ours"], first["reference"]),
        "seconds": {side: summary(values) for side, values in seconds.items()},
        "extra_mib": memory,
        "ratio": {
            "seconds": summary([theirs / mine for theirs, mine in pairs]),
            "extra_mib": memory["reference"] / memory["ours"] if memory["ours"] else None,
        },
    }


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def report(found: dict) -> str:
    """The table and what it holds for."""
    title = {"ours": "ours, optimised" if found["optimize"] else "ours"}
    title["reference"] = found["reference"]

    def row(name: str, seconds: dict, mib: float | None, digits: int) -> list[str]:
        times = [f"{seconds[key]:.{digits}f}" for key in ("min", "median", "max")]
        return [name, *times, "unknown" if mib is None else f"{mib:.{2 if digits == 2 else 0}f}"]

    rows = [row(title[s], found["seconds"][s], found["extra_mib"][s], 3) for s in title]
    ratio = found["ratio"]
    rows.append(row(f"{found['reference']} / ours", ratio["seconds"], ratio["extra_mib"], 2))
    headers = ["", "min s", "median s", "max s", "extra MiB"]
    what = f"training step of {found['batch']}" if found["training"] else "inference of 1"
    machine = found["hardware"]
    processor = machine["gpu"] or f"{machine['cpu']}, {machine['instructions']}"
    return "\n".join(
        [
            f"{found['config_file']}: {what} at {found['size'][0]}x{found['size'][1]}"
            f"{', bfloat16 autocast' if found['autocast'] else ''}, {found['runs']} runs each",
            tabulate(rows, headers, tablefmt="github", disable_numparse=True),
            f"relative difference of the {'loss' if found['training'] else 'logits'}: "
            f"{found['difference']:.1e}",
            f"{processor}; {machine['threads']} threads of {machine['cores']} cores; "
            f"PyTorch {machine['torch']}",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    found = measure(args)
    print(report(found))
    if args.output:
        write_text(args.output, json.dumps(found, indent=1))
    bar = _BARS["autocast" if args.autocast else args.device]
    if not found["difference"] <= bar:
        why = "the config's model is another one than the reference"
        if args.reference == "plain":
            why = "more than rounding, unless the model's random weights amplify that of --autocast"
        raise UsageError(f"the outputs differ by {found['difference']:.1e}, more than {bar}: {why}")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"benchmark_model.py: error: {one_line(error)}")
