"""What context blocks attend to, over a dataset: statistics, tables and pictures.

Examples:
    analyze_attention.py --config-file X.yaml --weights model_final.pth
    analyze_attention.py --config-file X.py --weights W.pth --images photos/ --max-images 20
    analyze_attention.py --config-file X.yaml --untrained --block sem_seg_head.context
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn
from tqdm import tqdm

from dnl_d2 import model_zoo
from dnl_d2.checkpoint import Checkpointer
from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.engine import RunSpec, build_model, load_config, read_config
from dnl_d2.errors import UsageError
from dnl_d2.files import check_folder, write_bytes
from dnl_d2.prediction import predicting_once
from dnl_d2_attention.analysis import Source, analyze
from dnl_d2_attention.drawing import draw
from dnl_d2_attention.maps import spread
from dnl_d2_attention.report import REPORT, table, write
from dnl_d2_attention.truth import of_labels


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", required=True, help="or the name of a recipe")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", metavar="FILE", help="of the trained model")
    weights.add_argument("--untrained", action="store_true", help="random weights, as a control")
    add("--dataset", metavar="NAME", help="registered; default: the config's first test set")
    add("--images", nargs="+", metavar="FILE", help="pictures in place of a dataset, or folders")
    add("--block", metavar="NAME", help="one block, by its name in the model; default: all")
    add("--max-images", type=int, default=100, metavar="N", help="evenly spread; default 100")
    add("--queries", type=int, default=1024, metavar="N", help="of each map at most; default 1024")
    add("--output", default="output/attention", metavar="DIR", help="default output/attention")
    add_import_option(parser)
    add("opts", nargs=argparse.REMAINDER, metavar="OVERRIDE", help="overrides of the config, last")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Analyses what the command line asks for, writes the files and prints the tables.

    Raises:
        UsageError: something does not exist, or cannot be read or written.
    """
    args = parse_args(arguments)
    for option in ("max_images", "queries"):
        if getattr(args, option) < 1:
            raise UsageError(f"--{option.replace('_', '-')} must be 1 or more")
    import_modules(args.imports)
    path = args.config_file
    path = path if os.path.exists(path) else model_zoo.get_config_file(path)
    spec = read_config(load_config(path, args.opts), train=False)
    source, name = _source(args, spec)
    _prepare(args.output)
    model = _model(args, spec)
    found = analyze(model, source, only=args.block, queries=args.queries)
    settings = {
        "config": args.config_file, "overrides": args.opts, "pictures": name,
        "weights": "random" if args.untrained else args.weights, "queries": args.queries,
    }  # fmt: skip
    summaries = write(args.output, found, settings)
    for block, what in found.blocks.items():
        title = f"{block}: {what}"
        print(f"\n{title}\n{table(summaries, block)}")
        weights = f"{os.path.basename(settings['weights'])}, {name}"
        picture = draw(found.figures, block, f"{title}\n{weights}")
        write_bytes(os.path.join(args.output, f"{block}.png"), picture)
    for what, times in found.left_out.items():
        print(f"left out (in {times} pictures): {what}")
    for why in found.unreadable:
        print(f"not read: {why}")
    print(f"\ntables and pictures: {args.output}")


def _source(args: argparse.Namespace, spec: RunSpec) -> tuple[Source, str]:
    mapper = spec.build_test_mapper()
    if args.images:
        if args.dataset:
            raise UsageError("--dataset and --images exclude each other: leave one of them out")
        records: list[dict[str, Any]] = [{"file_name": path} for path in _files(args.images)]
        chosen = spread(records, args.max_images)
        shown = tqdm(chosen, unit="image", disable=None)
        return Source(shown, mapper, lambda record: None), f"{len(chosen)} pictures"
    name = args.dataset or next(iter(spec.test_sets), None)
    if name is None:
        raise UsageError("the config has no test set: give --dataset or --images")
    if name not in DatasetCatalog.list():
        raise UsageError(f"--dataset: {name!r} is not registered")
    metadata = MetadataCatalog.get(name)
    try:
        records = DatasetCatalog.get(name)
    except (FileNotFoundError, NotADirectoryError, AssertionError) as error:
        raise UsageError(f"dataset {name}: {' '.join(str(error).split())}") from error
    chosen = spread(records, args.max_images)
    shown = tqdm(chosen, unit="image", disable=None)
    said = f"{name}, {len(chosen)} of {len(records)}"
    return Source(shown, mapper, lambda record: of_labels(record, metadata)), said


def _files(paths: Sequence[str]) -> list[str]:
    files = []
    for path in paths:
        if os.path.isdir(path):
            inside = (os.path.join(path, name) for name in sorted(os.listdir(path)))
            files += [file for file in inside if os.path.isfile(file)]
        elif os.path.isfile(path):
            files.append(path)
        else:
            raise UsageError(
                f"--images: {path} does not exist; overrides of the config come last, "
                "after another option than this"
            )
    if not files:
        raise UsageError(f"--images: {', '.join(paths)}: no file in there")
    return files


def _model(args: argparse.Namespace, spec: RunSpec) -> nn.Module:
    model = build_model(spec)
    if not args.untrained:
        order = spec.channel_order
        Checkpointer(model, key="--weights", channel_order=order).load_whole(
            args.weights, purpose="an analysis"
        )
    return predicting_once(model.eval())


def _prepare(folder: str) -> None:
    if os.path.exists(os.path.join(folder, REPORT)):
        raise UsageError(
            f"--output {folder} holds an analysis ({REPORT}): name another folder, or delete it"
        )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}") from error
    check_folder(os.path.join(folder, REPORT))
