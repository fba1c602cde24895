#!/usr/bin/env python
"""Reads every image and label of a dataset and says what would go wrong with it.

Examples:
    tools/check_dataset.py --images data/train --labels data/train_labels --classes road,car
    tools/check_dataset.py --images data/train --labels data/train_labels --val-images data/val \\
        --val-labels data/val_labels --classes-file names.txt --write-config mine.yaml
    tools/check_dataset.py --images data/all --labels data/labels --val-share 0.2 \\
        --classes road,car --write-config mine.yaml
    tools/check_dataset.py --dataset camvid_sem_seg_train camvid_sem_seg_val
    tools/check_dataset.py --config-file configs/....yaml

The exit status is 1 if something would break training or evaluation, 0 for warnings alone.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import _environment
from detectron2.config import CfgNode
from omegaconf import DictConfig

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.data.datasets.configured import (
    check_class_names,
    read_class_names,
    require_new_name,
)
from dnl_d2.engine import load_config, read_config
from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.files import check_folder, write_text
from dnl_d2.own_data.schedule import BATCH_SIZE
from dnl_d2.own_data.segmentor_config import check_base, lazy_config, weight_lines, yaml_config
from dnl_d2.own_data.segmentor_recipe import Base, fitting_recipe
from dnl_d2.own_data.split import NEAR_DUPLICATES, set_aside
from dnl_d2.validation import (
    Inspection,
    LabelledSet,
    draw_contact_sheet,
    folder_set,
    inspect_sets,
    registered_set,
)
from dnl_d2.validation.judgements import convertible_colors
from dnl_d2.validation.suggestions import conversion_script
from dnl_d2.validation.tables import as_data, as_text

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE = os.path.join("configs", "ade20k", "dnl_r50-d8_80k_ade20k-512x512")
REPORT = ("report.json", "contact_sheet.png")
FOLDER_OPTIONS = (
    "labels", "val_images", "val_labels", "val_share", "classes", "classes_file", "write_config",
    "base",
)  # fmt: skip


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "check_dataset.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to check, one of").add_mutually_exclusive_group(
        required=True
    )
    what.add_argument("--images", metavar="DIR", help="folder of images, with --labels")
    what.add_argument("--dataset", nargs="+", metavar="NAME", help="registered; for training first")
    what.add_argument("--config-file", metavar="FILE", help="its datasets and number of classes")
    folders = parser.add_argument_group("with --images")
    folders.add_argument("--labels", metavar="DIR", help="label PNGs of the same stems")
    folders.add_argument("--val-images", metavar="DIR", help="a second set, for validation")
    folders.add_argument("--val-labels", metavar="DIR", help="its labels")
    folders.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="in place of a second set: set this share aside, by two lists beside the config",
    )
    folders.add_argument("--classes", metavar="A,B,C", help="names of the classes 0, 1, ...")
    folders.add_argument("--classes-file", metavar="FILE", help="the same, one name a line")
    folders.add_argument(
        "--ignore-label", type=int, default=255, help="default: 255, ignored anyway"
    )
    folders.add_argument("--name", default="mine", help="of the dataset (default: mine)")
    folders.add_argument(
        "--write-config", metavar="FILE", help=".yaml or .py: write a config that trains on it"
    )
    folders.add_argument(
        "--base", metavar="FILE", help=f"of that config (default: {BASE}.yaml, .py)"
    )
    folders.add_argument(
        "--batch-size",
        type=int,
        default=BATCH_SIZE,
        metavar="N",
        help=f"of that config, for all GPUs together (default: {BATCH_SIZE})",
    )
    parser.add_argument("--opts", nargs="+", default=[], help="overrides of --config-file")
    parser.add_argument(
        "--output", default="output/check_dataset", help="folder for what it writes"
    )
    parser.add_argument("--pictures", type=int, default=12, help="per set on the contact sheet")
    parser.add_argument("--workers", type=int, help="threads (default: one per core, up to 16)")
    add_import_option(parser)
    args = parser.parse_args(arguments)
    check_args(parser, args)
    return args


def check_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where options do not go together."""
    for name in ("pictures", "workers", "batch_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    given = [name for name in FOLDER_OPTIONS if vars(args)[name]]
    if args.images is None and given:
        parser.error(f"--{given[0].replace('_', '-')} goes with --images")
    if args.images is not None and args.labels is None:
        parser.error("--images needs --labels")
    if (args.val_images is None) != (args.val_labels is None):
        parser.error("--val-images and --val-labels go together")
    if args.val_share is not None:
        if not 0 < args.val_share < 1:
            parser.error(f"--val-share {args.val_share:g}: give a number between 0 and 1")
        if args.val_images:
            parser.error("--val-share takes its pictures from --images: leave out --val-images")
        if not args.write_config:
            parser.error("--val-share writes its lists beside the config: give --write-config")
    if args.classes and args.classes_file:
        parser.error("--classes and --classes-file say the same: give one of them")


def main(args: argparse.Namespace) -> int:
    import_modules(args.imports)
    base = load_base(args) if args.images is not None else None
    sets, num_classes = find_sets(args)
    prepare_folder(args.output)
    inspection = inspect_sets(sets, num_classes=num_classes, workers=args.workers)
    print(f"\n{as_text(inspection)}\n")
    for name, finding in inspection.findings:
        print(finding.line(name))
    errors, warnings = inspection.errors, len(inspection.findings) - inspection.errors
    print(f"errors: {errors}, warnings: {warnings}")
    if inspection.weights:
        print_weights(inspection, sets[0].name)
    write_files(args, inspection)
    if args.images is not None and inspection.classes and not errors:
        give_config(args, inspection, base)
    elif args.write_config:
        why = "before the errors are corrected" if errors else "without --classes"
        print(f"{args.write_config} is not written {why}")
    return 1 if errors else 0


def load_base(args: argparse.Namespace) -> CfgNode | DictConfig:
    """The config that the new one will change, if all that is known so far allows one."""
    if args.write_config:
        check_folder(args.write_config)
        if os.path.exists(args.write_config):
            raise UsageError(f"--write-config {args.write_config}: exists, give another name")
        for split in ("train", "val") if args.val_images or args.val_share else ("train",):
            require_new_name(f"{args.name}_{split}", "--name")
        for path in split_lists(args).values() if args.val_share else ():
            if os.path.exists(path):
                raise UsageError(f"--val-share: {path} exists, give another --name")
    written = args.write_config or "mine.yaml"
    args.small = not args.base  # where there are few pictures
    args.base = args.base or os.path.join(ROOT, BASE) + os.path.splitext(written)[1]
    check_base(args.base, written)
    return load_config(args.base)


def find_sets(args: argparse.Namespace) -> tuple[list[LabelledSet], int | None]:
    """The sets to check, that for training first, and the model's number of classes."""
    if args.dataset:
        names = dict.fromkeys(args.dataset)
        return [registered_set(name, for_training=not i) for i, name in enumerate(names)], None
    if args.config_file:
        spec = read_config(load_config(args.config_file, args.opts), train=False)
        train, num_classes = spec.train_sets, spec.task.num_classes
        names = dict.fromkeys([*train, *spec.test_sets])
        if not names:
            raise UsageError(f"{args.config_file} names no dataset")
        return [registered_set(name, for_training=name in train) for name in names], num_classes
    classes = None
    if args.classes_file:
        classes = read_class_names(args.classes_file, "--classes-file")
    elif args.classes is not None:
        classes = check_class_names([c.strip() for c in args.classes.split(",")], "--classes")
    options = {"classes": classes, "ignore_label": args.ignore_label}
    sets = [folder_set(f"{args.name}_train", args.images, args.labels, **options)]
    if args.val_images:
        sets.append(folder_set(f"{args.name}_val", args.val_images, args.val_labels, **options))
    return sets, None


def print_weights(inspection: Inspection, name: str) -> None:
    in_yaml, in_lazy = weight_lines(inspection.weights)
    print(
        f"\nClass weights for {name} by median-frequency balancing (Eigen and Fergus, ICCV 2015): "
        "median of the frequencies / frequency,\nfrequency = pixels of the class / labelled pixels "
        f"of the images that hold it; 1 for a class that none holds.\n  YAML, below MODEL: "
        f"SEM_SEG_HEAD:  {in_yaml}\n  LazyConfig:  {in_lazy}"
    )


def give_config(
    args: argparse.Namespace, inspection: Inspection, base: CfgNode | DictConfig
) -> None:
    """Writes the config that trains on the folders, or prints it."""
    train, test = choose_sets(args, inspection)
    written = args.write_config or "mine.yaml"
    make = lazy_config if written.endswith(".py") else yaml_config
    recipe = fitting_recipe(
        base_of_recipe(args, base),
        inspection,
        images=len(train.pairs),
        batch_size=args.batch_size,
        output_dir=f"output/{args.name}",
    )
    text = make(train, test, recipe)
    if test is None:
        print(
            "\nwithout a set for validation the model is never evaluated, and no best checkpoint "
            "kept: give --val-images and --val-labels, or --val-share 0.2"
        )
    if not args.write_config:
        print(f"\nTo train on it (--write-config {written} writes this file):\n\n{text}")
        return
    write_text(args.write_config, text)
    command = _environment.command_line("train_net.py", "--config-file", args.write_config)
    print(f"\nTo train on it: {command}")


def base_of_recipe(args: argparse.Namespace, config: CfgNode | DictConfig) -> Base:
    """What the new config starts from."""
    spec = read_config(config, train=False)
    return Base(
        path=os.path.relpath(args.base, os.path.dirname(args.write_config or "") or "."),
        crop_size=spec.task.crop_size,
        batch_size=spec.batch_size,
        max_iter=spec.max_iter,
        rates=spec.rates,
        warms_up=spec.warms_up,
        replaceable=args.small,
    )


def split_lists(args: argparse.Namespace) -> dict[str, str]:
    """Where the lists of ``--val-share`` go: beside the config."""
    folder = os.path.dirname(os.path.abspath(args.write_config))
    return {split: os.path.join(folder, f"{args.name}_{split}.txt") for split in ("train", "val")}


def choose_sets(
    args: argparse.Namespace, inspection: Inspection
) -> tuple[LabelledSet, LabelledSet | None]:
    """The sets for training and for validation; with ``--val-share`` by lists, which it writes."""
    summary, *others = inspection.summaries
    if args.val_share is None:
        return summary.source, others[0].source if others else None
    lists = split_lists(args)
    train, test = set_aside(summary, args.val_share, lists, name=args.name)
    print(
        f"\nSet aside for validation: {len(test.pairs)} of {len(summary.held)} pictures, by "
        f"{lists['train']} and {lists['val']}; {NEAR_DUPLICATES}"
    )
    return train, test


def write_files(args: argparse.Namespace, inspection: Inspection) -> None:
    """The figures and the contact sheet, and a script for labels that hold colours."""
    figures, sheet = (os.path.join(args.output, name) for name in REPORT)
    write_text(figures, json.dumps(as_data(inspection), indent=1) + "\n")
    written = [figures]
    sets = [summary.source for summary in inspection.summaries]
    classes = inspection.classes or [str(value) for value in range(256)]
    if draw_contact_sheet(sheet, sets, classes=classes, count=args.pictures):
        written.append(sheet)
    print(f"\nWritten: {shlex.join(written)}")
    colors, tolerance = convertible_colors(inspection.summaries)
    if colors and args.images is not None:
        folders = [source.folders[1] for source in sets]
        write_script(
            os.path.join(args.output, "convert_labels.py"),
            conversion_script(colors, folders, tolerance=tolerance),
        )


def write_script(path: str, text: str) -> None:
    """Writes the script, unless there is one: the user may have been at work on it."""
    if os.path.exists(path):
        print(f"{path} is there already and stays as it is: remove it to get a new one")
        return
    write_text(path, text)
    print(
        f"{path} turns the colours of the labels into class ids, in folders beside them: put its "
        "colours into the order of your classes, then run it"
    )


def prepare_folder(path: str) -> None:
    """Makes the folder, without the report of an earlier run."""
    try:
        os.makedirs(path, exist_ok=True)
        for name in REPORT:
            Path(path, name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be used ({error.strerror})") from error


def command(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; always ends in ``SystemExit``."""
    try:
        with ending_in_one_line("check_dataset.py"):
            sys.exit(main(parse_args(arguments)))
    except KeyboardInterrupt:
        print("check_dataset.py: interrupted, the report is not written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command()
