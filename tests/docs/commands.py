"""Runs the commands of ``bash`` blocks as a person would, in this process.

A tool runs whole, by its own file and the arguments of the document, but for these:

- ``train_net.py`` trains two iterations of two small crops, from random weights if the command
  gives none, and evaluates small pictures. Where the config's data is not in the workspace
  (Cityscapes, COCO, ...), all is done but the run itself: the config is loaded and checked, and its
  model built without memory, on ``meta``.
- ``generate_dataset.py`` draws few pictures.
- Weights that are published, and not in the workspace, are random ones, and pictures then small.
- ``prepare_dataset.py`` finds no archive, and must say so.
- ``check_parity.py``, the benchmarks and the projects' trainings read their options only.

What is no tool is in ``CHECKED``: not run, but what it names must exist.
"""

import re
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
import yaml

import dnl_d2.engine
from dnl_d2.checkpoint import Checkpointer
from dnl_d2.config.loading import load_config_file
from dnl_d2.engine import cli
from dnl_d2.modeling.from_config import build_from_config
from tests.docs.pages import ROOT
from tests.tools.programs import run_file

SHORT_YAML = [
    "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.REFERENCE_BATCH_SIZE", "0",
    "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0", "SOLVER.CHECKPOINT_PERIOD", "2",
    "SOLVER.ACCUMULATE", "1", "SOLVER.AMP.ENABLED", "False", "DATALOADER.NUM_WORKERS", "0",
    "TEST.EVAL_PERIOD", "0", "INPUT.CROP.SIZE", "[64,64]",
]  # fmt: skip
_PUBLISHED = re.compile(r"mmseg://[\w-]+|(?:dnl|nonlocal|gcnet|ann)_r\d+-d8_\w+\.pth")
SMALL_YAML = ["INPUT.RESIZE.BASE_SIZE", "[128,96]"]
SHORT_LAZY = [
    "train.max_iter=2", "dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0",
    "lr_multiplier.iterations=0", "train.checkpointer.period=2", "train.amp.enabled=false",
]  # fmt: skip


def run_block(text: str) -> None:
    """Runs every command of a block in the current folder.

    Raises:
        AssertionError: one failed, or is of a kind that no test runs or checks.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            _run(words)


def _run(words: list[str]) -> None:
    name = words[0]
    if words[0] == "python" and words[1].endswith(".py"):
        words = words[1:]
        name = words[0]
    if re.fullmatch(r"(tools|projects/\w+)/\w+\.py", name):
        RUNNERS.get(Path(name).name, run_tool)(words)
    elif name.endswith(".py"):
        assert run_file(words) == 0, words
    elif name in CHECKED:
        CHECKED[name](words[1:])
    else:
        raise AssertionError(f"no test runs or checks {shlex.join(words)!r}")


def run_tool(words: list[str]) -> None:
    """A tool, which must succeed."""
    weights = words[words.index("--weights") + 1] if "--weights" in words else None
    with ExitStack() as stack:
        if weights and _PUBLISHED.fullmatch(weights):
            stack.enter_context(patch.object(Checkpointer, "load_whole", lambda *_, **__: None))
            words = [*words, *([] if "--opts" in words else ["--opts"]), *SMALL_YAML]
        status = run_file(words)
    assert status == 0, f"{shlex.join(words)}: {status}"


def train(words: list[str]) -> None:
    """``train_net.py``, reduced as the module says."""
    arguments, heavy = words[1:], not _data_is_here(words)
    if not heavy:
        arguments = arguments + _shorter(arguments)

    def here(main: Callable, *_: object, args: tuple, **__: object) -> object:
        return main(*args)

    with ExitStack() as stack:
        stack.enter_context(patch.object(cli, "launch", here))
        stack.enter_context(patch.object(torch.cuda, "device_count", lambda: 8))
        if heavy:
            stack.enter_context(patch.object(cli, "run", _read_and_build))
        run_tool([words[0], *arguments])


def _shorter(arguments: list[str]) -> list[str]:
    """Overrides that leave a run as it is but for its length and sizes."""
    length = re.search(r"(?:train\.max_iter=|SOLVER\.MAX_ITER )(\d+)", " ".join(arguments))
    if length and int(length[1]) < 10:
        return []
    lazy = any(argument.endswith(".py") for argument in arguments)
    if "--eval-only" in arguments:
        return [] if lazy else SMALL_YAML
    if lazy:
        return SHORT_LAZY
    weights = [] if "MODEL.WEIGHTS" in arguments else ["MODEL.WEIGHTS", ""]
    return SHORT_YAML + SMALL_YAML + weights


def _data_is_here(words: list[str]) -> bool:
    """Whether the workspace has what a config of ``configs/``, or one of the page, trains on."""
    config = words[words.index("--config-file") + 1]
    if config.startswith("configs/"):
        return config.split("/")[1] in ("camvid", "generated")
    cfg = load_config_file(config)
    return bool(cfg.DATASETS.FOLDERS) or "camvid_sem_seg_train" in cfg.DATASETS.TRAIN


def _read_and_build(cfg: object, args: Namespace) -> dict:
    """In place of :func:`dnl_d2.engine.run`."""
    spec = dnl_d2.engine.read_config(cfg, train=not args.eval_only)
    assert spec.train_sets or spec.test_sets
    assert spec.weights or not args.eval_only
    build_from_config(args.config_file, args.opts, device="meta")
    return {}


def generate(words: list[str]) -> None:
    """``generate_dataset.py``, with few pictures."""
    run_tool(words if "--train" in words else [*words, "--train", "4", "--val", "2"])


def prepare(words: list[str]) -> None:
    """``prepare_dataset.py``, to which nothing has been unpacked."""
    status = run_file(words)
    assert status != 0, f"{shlex.join(words)} found something to prepare"


def parse(words: list[str]) -> None:
    """Reads the options of a tool, which ends there."""

    class Parsed(Exception):
        pass

    def stopping(read: Callable) -> Callable:
        def parse(parser: ArgumentParser, *arguments: object) -> None:
            read(parser, *arguments)
            raise Parsed

        return parse

    name = Path(words[0]).name
    (script,) = map(str, (ROOT / "projects").glob(f"*/{name}"))
    with ExitStack() as stack:
        for name in ("parse_args", "parse_intermixed_args"):
            stopped = stopping(getattr(ArgumentParser, name))
            stack.enter_context(patch.object(ArgumentParser, name, stopped))
        try:
            run_file([script, *words[1:]])
        except Parsed:
            return
    raise AssertionError(f"{words[0]} read no options")


RUNNERS = {
    "train_net.py": train,
    "generate_dataset.py": generate,
    "generate_pairs.py": generate,
    "prepare_dataset.py": prepare,
    **dict.fromkeys(
        (
            "check_parity.py",
            "benchmark_blocks.py",
            "benchmark_data.py",
            "benchmark_export.py",
            "benchmark_gpu.py",
            "benchmark_model.py",
            "generate_videos.py",
            "train_image_net.py",
            "train_video_net.py",
        ),
        parse,
    ),
}


def make(arguments: list[str]) -> None:
    """Each target is in the Makefile."""
    targets = [word for word in arguments if "=" not in word]
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony and targets and set(targets) <= set(phony.group(1).split()), targets


def pip(arguments: list[str]) -> None:
    """Extras are in pyproject.toml, files exist."""
    assert arguments[0] == "install"
    project = (ROOT / "pyproject.toml").read_text()
    for word in arguments[1:]:
        for extras in re.findall(r"^(?:\.|dnl_d2)\[([\w,]+)\]$", word):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def export(arguments: list[str]) -> None:
    """A variable that the library reads, whose value here stays the workspace's, or a project."""
    ((name, _, value),) = (word.partition("=") for word in arguments)
    assert name == "DETECTRON2_DATASETS" or (name == "PYTHONPATH" and (ROOT / value).is_dir())


def change_folder(arguments: list[str]) -> None:
    """Into the clone, in which this runs already."""
    assert arguments == ["dnl_d2"], arguments


def notebook(arguments: list[str]) -> None:
    """The notebook exists; its own test runs it."""
    assert (ROOT / arguments[-1]).is_file() and arguments[-1].endswith(".ipynb"), arguments


def clone(arguments: list[str]) -> None:
    """A clone, which only the reader knows the address of."""
    assert arguments[0] == "clone"


def started_by(arguments: list[str]) -> None:
    """What torchrun or srun starts is a tool with a config that exists."""
    (script,) = (word for word in arguments if word.endswith("train_net.py"))
    config = arguments[arguments.index("--config-file") + 1]
    assert (ROOT / script).is_file() and (ROOT / config).is_file(), arguments


def ci(arguments: list[str]) -> None:
    """The script of CI."""
    assert (ROOT / ".ci/run").is_file() and not arguments


# What is not run.
CHECKED = {
    "make": make,
    "pip": pip,
    "export": export,
    "cd": change_folder,
    "git": clone,
    "jupyter": notebook,
    "srun": started_by,
    "torchrun": started_by,
    ".ci/run": ci,
}


def load_yaml(text: str, path: Path) -> None:
    """A YAML block: the keys exist, and where it is a whole config its model can be built."""
    path.write_text(text, encoding="utf-8")
    dnl_d2.engine.load_config(str(path))
    if "_BASE_" in yaml.safe_load(text):
        build_from_config(str(path), [], device="meta")
