"""Times how a config's training pictures are prepared, by part, beside mmsegmentation's pipeline.

CPU time of one thread, as a worker of a data loader has it. Both sides prepare the same pictures in
turns, with the same draws: those of the config's datasets or, where they are not there, generated
ones. Without mmsegmentation the config's side stands alone.

Examples:
    tools/benchmark_data.py
    tools/benchmark_data.py --config-file configs/camvid/....yaml --pictures 40 --output data.json
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import cv2
import torch

from dnl_d2.data import SemSegMapper
from dnl_d2.engine import RunSpec, load_config, read_config
from dnl_d2.errors import UsageError, building
from dnl_d2.files import check_folder, write_text
from dnl_d2.layers.common import check_count
from dnl_d2_parity.benchmarks import data_pictures
from dnl_d2_parity.benchmarks.data_runs import measure, report

_CONFIG = "configs/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        default=str(Path(__file__).parents[4] / _CONFIG),
        metavar="FILE",
        help=f"YAML or LazyConfig of a segmentor (default {_CONFIG})",
    )
    parser.add_argument("--pictures", type=int, default=4, help="how many (default 4)")
    parser.add_argument(
        "--rounds", type=int, default=10, help="times each is prepared (default 10)"
    )
    parser.add_argument(
        "--size", nargs=2, type=int, default=[1024, 2048], metavar=("H", "W"),
        help="of generated pictures (default 1024 2048, Cityscapes')",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FILE.json", help="also write the figures there")
    parser.add_argument("opts", nargs="*", metavar="OVERRIDE", help="overrides of the config")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check_count(**{"--pictures": args.pictures, "--rounds": args.rounds})
    check_count(**{"--size height": args.size[0], "--size width": args.size[1]})
    if args.output:
        check_folder(args.output)
    spec = read_config(load_config(args.config_file, args.opts), train=True)
    with building("training mapper"):
        mapper = spec.build_train_mapper()
    if not isinstance(mapper, SemSegMapper):
        raise UsageError(f"{args.config_file}: only segmentors' pictures are timed by part")
    for library in (torch.set_num_threads, cv2.setNumThreads):
        library(1)
    with tempfile.TemporaryDirectory() as folder:
        records, what = _pictures(spec, mapper, args, folder)
        found = measure(mapper, records, args.rounds)
    found = {"config_file": os.path.relpath(args.config_file), "pictures": what, **found}
    print(report(found))
    if args.output:
        write_text(args.output, json.dumps(found, indent=1))


def _pictures(
    spec: RunSpec, mapper: SemSegMapper, args: argparse.Namespace, folder: str
) -> tuple[list[dict], str]:
    """Records, and what they are in a line."""
    try:
        records = data_pictures.spread(spec.train_sets, args.pictures)
        what = f"{len(records)} pictures of {', '.join(spec.train_sets)}"
    except UsageError as error:
        size = tuple(args.size)
        records = data_pictures.generated(folder, args.pictures, size, mapper.num_classes)
        reason = str(error).partition(": ")[0]
        what = f"{len(records)} generated pictures of {size[0]}x{size[1]} ({reason})"
    sizes = [os.path.getsize(record["file_name"]) / 2**20 for record in records]
    return records, f"{what}; {sum(sizes) / len(sizes):.2f} MiB each"
