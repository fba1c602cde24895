#!/usr/bin/env python
"""Writes the YAML config of a zoo detector with a context block that trains on your own data.

Examples:
    tools/new_config.py mine.yaml --json data/all.json --images data/images --val-share 0.2
    tools/new_config.py mine.yaml --model COCO-Detection/faster_rcnn_R_50_FPN_3x --block dnl \\
        --json data/train.json --images data/train --val-json data/val.json --val-images data/val

The files are in COCO's form. They are checked first, and nothing is written over.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

import _environment
import msgspec

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.data.datasets.coco_json import read_coco_json
from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.data.datasets.configured import require_new_name
from dnl_d2.engine import load_config, read_config
from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.files import check_folder, write_bytes, write_text
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block
from dnl_d2.own_data.detector_config import (
    CocoFacts,
    CocoSet,
    ZooDetector,
    as_config,
    as_yaml,
    coco_facts,
)
from dnl_d2.own_data.schedule import BATCH_SIZE, Schedule
from dnl_d2.own_data.split import NEAR_DUPLICATES, split_coco
from dnl_d2.validation.splits import check_splits

MODEL = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
WITHOUT_MASKS = "COCO-Detection/faster_rcnn_R_50_FPN_3x"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "new_config.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="FILE", help="the .yaml file to write")
    parser.add_argument("--model", default=MODEL, help=f"of the model zoo (default: {MODEL})")
    parser.add_argument("--block", default="gc", help="context block (default: gc)")
    parser.add_argument("--json", required=True, metavar="FILE", help="annotations for training")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of their images")
    parser.add_argument("--val-json", metavar="FILE", help="annotations for validation")
    parser.add_argument("--val-images", metavar="DIR", help="folder of their images")
    parser.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="in place of these: set this share aside, by two JSON files beside the config",
    )
    parser.add_argument("--name", default="mine", help="of the dataset (default: mine)")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, metavar="N",
        help=f"for all GPUs together (default: {BATCH_SIZE})",
    )  # fmt: skip
    add_import_option(parser)
    args = parser.parse_args(arguments)
    check_args(parser, args)
    return args


def check_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where options do not go together."""
    if (args.val_json is None) != (args.val_images is None):
        parser.error("--val-json and --val-images go together")
    if args.val_share is not None and not 0 < args.val_share < 1:
        parser.error(f"--val-share {args.val_share:g}: give a number between 0 and 1")
    if args.val_share is not None and args.val_json:
        parser.error("--val-share takes its images from --json: leave out --val-json")
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")


def main(args: argparse.Namespace) -> None:
    import_modules(args.imports)
    refuse_to_overwrite(args)
    if args.block not in CONTEXT_BLOCKS:
        raise UsageError(f"--block {args.block}: there is {', '.join(CONTEXT_BLOCKS)}")
    detector = ZooDetector(args.model)
    train = CocoSet(f"{args.name}_train", args.json, args.images)
    test = None
    if args.val_json:
        test = CocoSet(f"{args.name}_val", args.val_json, args.val_images)
    try:
        form, _ = read_coco_json(args.json)
    except UsageError as error:
        raise UsageError(f"--json {args.json}: {error}") from error
    facts = coco_facts(form)
    written, schedule = settings(args, detector, facts, train, test)
    check(written)
    parts = split_coco(form, args.val_share) if args.val_share else None
    with removed_on_failure(new_files(args)):
        if parts:
            train, test = write_parts(args, parts)
            facts = coco_facts(parts[0])
            written, schedule = settings(args, detector, facts, train, test)
            check(written)
        text = as_yaml(written, f"{detector.name} with {args.block}, on own data.")
        write_text(args.config, text)
        load_config(args.config)
    if parts:
        print(
            f"set aside for validation: {len(parts[1].images)} of {len(form.images)} images, "
            f"by {' and '.join(split_files(args))}; {NEAR_DUPLICATES}"
        )
    report(args, detector, facts, schedule, validates=test is not None)


def refuse_to_overwrite(args: argparse.Namespace) -> None:
    """Raises a UsageError if a file or a dataset of that name is there already."""
    if not args.config.endswith((".yaml", ".yml")):
        raise UsageError(f"{args.config}: the config is a YAML file, whose name ends in .yaml")
    check_folder(args.config)
    for path in new_files(args):
        if os.path.exists(path):
            raise UsageError(f"{path}: exists, give another name")
    for split in ("train", "val"):
        require_new_name(f"{args.name}_{split}", "--name")


def settings(
    args: argparse.Namespace,
    detector: ZooDetector,
    facts: CocoFacts,
    train: CocoSet,
    test: CocoSet | None,
) -> tuple[dict, Schedule]:
    """Keys and values of the config, and how long it trains."""
    schedule = detector.schedule(max(facts.images, 1), args.batch_size)  # none: the check says so
    output_dir = f"output/{args.name}"
    written = detector.config(
        args.block, facts, train, test, schedule=schedule, output_dir=output_dir
    )
    return written, schedule


def check(written: dict) -> None:
    """Checks the datasets as a run of the config would."""
    spec = read_config(as_config(written), train=True)
    try:
        check_splits(
            {"--json": spec.train_sets},
            {"--val-json": spec.test_sets},
            eval_only=False,
            task=spec.task,
            max_files=spec.max_checked_files or 0,
        )
    except UsageError as error:  # there is no config yet in which to set a key
        advice = f"take a model without masks, such as --model {WITHOUT_MASKS}"
        raise UsageError(str(error).replace("set MODEL.MASK_ON to false", advice)) from error


def split_files(args: argparse.Namespace) -> list[str]:
    """Where the files of ``--val-share`` go: beside the config."""
    folder = os.path.dirname(args.config)
    return [os.path.join(folder, f"{args.name}_{split}.json") for split in ("train", "val")]


def new_files(args: argparse.Namespace) -> list[str]:
    """All that is written."""
    return [args.config, *(split_files(args) if args.val_share else ())]


@contextlib.contextmanager
def removed_on_failure(paths: Sequence[str]) -> Iterator[None]:
    """Leaves none of these new files behind where not all of them come about."""
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                os.remove(path)
        raise


def write_parts(
    args: argparse.Namespace, parts: tuple[CocoForm, CocoForm]
) -> tuple[CocoSet, CocoSet]:
    """Writes the two files of ``--val-share``; returns their sets."""
    for path, part in zip(split_files(args), parts, strict=True):
        write_bytes(path, msgspec.json.encode(part))
    train, test = (
        CocoSet(f"{args.name}_{split}", path, args.images)
        for split, path in zip(("train", "val"), split_files(args), strict=True)
    )
    return train, test


def report(
    args: argparse.Namespace,
    detector: ZooDetector,
    facts: CocoFacts,
    schedule: Schedule,
    *,
    validates: bool,
) -> None:
    """Says what was chosen and what to run."""
    print(
        f"written: {args.config}: {facts.classes} classes, {schedule.max_iter} iterations, "
        f"{schedule.remark}"
    )
    if detector.has_masks and not facts.masks:
        print("no object has a mask: MODEL.MASK_ON is false")
    if not build_context_block(args.block, 8).identity_at_init:
        print(f"{args.block} changes the outputs of the trained model from the start")
    if not validates:
        print(
            "without a set for validation the model is never evaluated, and no best checkpoint "
            "kept: give --val-json and --val-images, or --val-share 0.2"
        )
    print(f"to train: {_environment.command_line('train_net.py', '--config-file', args.config)}")


def command(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; ends in ``SystemExit`` on a mistake."""
    with ending_in_one_line("new_config.py"):
        main(parse_args(arguments))


if __name__ == "__main__":
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(130)
