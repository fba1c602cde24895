"""Times a config's segmentation model beside a reference model with the same weights.

Inference goes from an 8-bit image to a label map, after dnl_d2.optimize_for_inference unless
--no-optimize is given; a training step is forward, losses, backward and SGD. Each model lives in a
process of its own, and the two run in turns. Memory is what a process takes at most beyond what it
held before its first pass: of the GPU, or of the machine (Linux only).

Examples:
    tools/benchmark_model.py --config-file configs/....yaml --size 512 1024 --threads 2
    tools/benchmark_model.py --config-file configs/....yaml --training --batch 2 --device cuda
    tools/benchmark_model.py --config-file X.yaml --training --tuned --autocast --device cuda
    tools/benchmark_model.py --config-file configs/....py --reference plain --output speed.json
    tools/benchmark_model.py --config-file X.yaml --precision bfloat16 --reference optimized
"""

import argparse
import importlib.util
import json
import os

import torch

from dnl_d2.config.rules import PRECISIONS
from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from dnl_d2.files import write_text
from dnl_d2.layers.common import check_count
from dnl_d2_parity.benchmarks.model_runs import measure, report

# Largest relative difference between outputs of the same model: in float32, bfloat16 on both sides,
# and on one of them, which random weights amplify. TF32 is off for the outputs that are compared.
_BARS = {"cpu": 1e-3, "cuda": 1e-2, "autocast": 1e-1, "precision": 5e-1}


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
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the config's model, in inference (default float32)",
    )
    parser.add_argument("--training", action="store_true", help="time a training step")
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="train the config's model channels-last, compiled, with cudnn.benchmark, a fused SGD "
        "and pinned images",
    )
    parser.add_argument("--batch", type=int, help="images per training step (default 2)")
    parser.add_argument("--autocast", action="store_true", help="both models in bfloat16 autocast")
    parser.add_argument(
        "--reference",
        choices=("mmseg", "plain", "optimized"),
        default="mmseg",
        help="mmsegmentation's published model; or the config's own in float32, as it is built or "
        "after optimize_for_inference",
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
    if args.tuned and not args.training:
        raise UsageError("--tuned is for --training; inference has --optimize")
    if args.training and args.reference != "mmseg":
        raise UsageError(f"--reference {args.reference} has nothing to compare in --training")
    args.optimize = not args.training if args.optimize is None else args.optimize
    if args.precision != "float32" and not args.optimize:
        raise UsageError(f"--precision {args.precision} is for inference, after --optimize")
    if args.precision != "float32" and args.autocast:
        raise UsageError(f"--precision {args.precision} takes the place of --autocast")
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


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    found = measure(args)
    print(report(found))
    if args.output:
        write_text(args.output, json.dumps(found, indent=1))
    rounds = "precision" if args.precision != "float32" else "autocast" if args.autocast else ""
    bar = _BARS[rounds or args.device]
    if not found["difference"] <= bar:
        why = "the config's model is another one than the reference"
        if args.reference != "mmseg":
            why = "more than rounding, unless the model's random weights amplify that of bfloat16"
        raise UsageError(f"the outputs differ by {found['difference']:.1e}, more than {bar}: {why}")
