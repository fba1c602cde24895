"""A config that trains a segmentor on two folders, and class weights as lines of one."""

import os
from collections.abc import Sequence

import yaml

from dnl_d2.errors import UsageError
from dnl_d2.own_data.segmentor_recipe import SegmentorRecipe
from dnl_d2.validation import LabelledSet

_SMALL_WEIGHTS = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
_SMALL_YAML = f"""\
  WEIGHTS: {_SMALL_WEIGHTS}  # few pictures: a small network
  RESNETS: {{DEPTH: 18, STEM_TYPE: basic, RES2_OUT_CHANNELS: 64}}
"""
_SMALL_HEAD_YAML = "    CONVS_DIM: 128\n    AUXILIARY: {CONVS_DIM: 64}\n"
_SMALL_LAZY = (
    f"train.init_checkpoint = {_SMALL_WEIGHTS!r}  # few pictures: a small network",
    "model.backbone.depth = 18",
    'model.backbone.stem = "basic"',
    "model.backbone.res2_out_channels = 64",
    "model.sem_seg_head.input_shape.res4.channels = 256",
    "model.sem_seg_head.input_shape.res5.channels = 512",
    "model.sem_seg_head.channels = 128",
    "model.sem_seg_head.auxiliary.channels = 64",
)
_CROP_COMMENT = "# height, width; the base's is larger"


def yaml_config(train: LabelledSet, test: LabelledSet | None, recipe: SegmentorRecipe) -> str:
    """A YAML config that trains on ``train`` and evaluates on ``test``, both of two folders."""
    entries = [_entry(part, recipe.classes) for part in (train, test) if part is not None]
    folders = "\n".join(f"  - {_flow(entry)}" for entry in entries)
    crop = f"  CROP: {{SIZE: {list(recipe.crop_size)}}}  {_CROP_COMMENT}\n"
    return (
        f"_BASE_: {_flow(recipe.base)}\n"
        f"DATASETS:\n  FOLDERS:\n{folders}\n"
        f"  TRAIN: [{_flow(train.name)}]\n"
        f"  TEST: [{_flow(test.name) if test else ''}]\n"
        f"INPUT:\n  RESIZE: {{BASE_SIZE: {list(recipe.base_size)}}}  # long, short side\n"
        + (crop if recipe.crop_size else "")
        + "MODEL:\n"
        + (_SMALL_YAML if recipe.small else "")
        + f"  SEM_SEG_HEAD:\n    NUM_CLASSES: {len(recipe.classes)}\n"
        + (_SMALL_HEAD_YAML if recipe.small else "")
        + (f"    # {weight_lines(recipe.weights)[0]}\n" if recipe.weights else "")
        + _yaml_schedule(recipe, evaluates=test is not None)
        + f"OUTPUT_DIR: {_flow(recipe.output_dir)}\n"
    )


def _yaml_schedule(recipe: SegmentorRecipe, *, evaluates: bool) -> str:
    schedule = recipe.schedule
    if schedule is None:
        return ""
    rates = [_flow(rate * schedule.rate_factor) for rate in recipe.rates]
    return (
        f"SOLVER:\n  IMS_PER_BATCH: {schedule.batch_size}\n"
        f"  BASE_LR: {rates[0]}\n  MIN_LR: {rates[1]}\n"
        f"  MAX_ITER: {schedule.max_iter}  # {schedule.remark}\n"
        f"  WARMUP_ITERS: {schedule.warmup}\n"
        f"  CHECKPOINT_PERIOD: {schedule.period}\n  CHECKPOINTS_TO_KEEP: 3\n"
        + (f"TEST:\n  EVAL_PERIOD: {schedule.period}\n" if evaluates else "")
    )


def lazy_config(train: LabelledSet, test: LabelledSet | None, recipe: SegmentorRecipe) -> str:
    """The same as :func:`yaml_config` as a LazyConfig file."""
    cropped = f"{tuple(recipe.crop_size)}  {_CROP_COMMENT}"
    augmentations = "dataloader.train.mapper.augmentations"
    testing = "del dataloader.test, dataloader.evaluator"
    if test is not None:
        testing = f"dataloader.test.dataset.names = {test.name!r}"
    lines = [
        *_lazy_imports(recipe),
        f"CLASSES = {list(recipe.classes)!r}",
        *(_registration(part) for part in (train, test) if part is not None),
        "",
        "dataloader, lr_multiplier, model, optimizer, train = LazyConfig.load_rel(",
        f"    {recipe.base!r},",
        '    ("dataloader", "lr_multiplier", "model", "optimizer", "train"),',
        ")",
        f"dataloader.train.dataset.names = {train.name!r}",
        f"dataloader.train.mapper.dataset_ignore_label = {train.ignore_label}",
        f"{augmentations}.base_size = {list(recipe.base_size)}",
        *([f"{augmentations}.crop_size = {cropped}"] if recipe.crop_size else []),
        testing,
        *(_SMALL_LAZY if recipe.small else ()),
        f"model.sem_seg_head.num_classes = {len(recipe.classes)}",
        *([f"# {weight_lines(recipe.weights)[1]}"] if recipe.weights else []),
        *_lazy_schedule(recipe, evaluates=test is not None),
        f"train.output_dir = {recipe.output_dir!r}",
    ]
    return "\n".join(lines) + "\n"


def _lazy_imports(recipe: SegmentorRecipe) -> list[str]:
    lines = [
        "from detectron2.config import LazyConfig\n",
        "from dnl_d2.data import register_sem_seg_folder",
    ]
    if recipe.schedule is not None and not recipe.warms_up:
        lines.insert(0, "from detectron2.config import LazyCall as L")
        lines.append("from dnl_d2.engine import warmed_up")
    return [*lines, ""]


def _lazy_schedule(recipe: SegmentorRecipe, *, evaluates: bool) -> list[str]:
    schedule = recipe.schedule
    if schedule is None:
        return []
    warmup = [f"lr_multiplier.iterations = {schedule.warmup}"]
    if not recipe.warms_up:
        warmup = [
            "lr_multiplier = L(warmed_up)(",
            f"    scheduler=lr_multiplier, factor=0.001, iterations={schedule.warmup},",
            '    max_iter="${train.max_iter}",',
            ")",
        ]
    return [
        f"dataloader.train.total_batch_size = {schedule.batch_size}",
        f"optimizer.lr = {recipe.rates[0] * schedule.rate_factor:g}",
        *warmup,
        f"train.max_iter = {schedule.max_iter}  # {schedule.remark}",
        f"train.checkpointer.period = {schedule.period}",
        f"train.eval_period = {schedule.period if evaluates else 0}",
    ]


def weight_lines(weights: Sequence[float]) -> list[str]:
    """Class weights as YAML below MODEL.SEM_SEG_HEAD, and as LazyConfig."""
    values = ", ".join(f"{weight:g}" for weight in weights)
    return [
        f"LOSS_CLASS_WEIGHTS: [{values}]",
        f"model.sem_seg_head.loss.class_weights = [{values}]",
    ]


def check_base(path: str, written: str) -> None:
    """Raises a UsageError unless ``path`` exists and is a config of the kind of ``written``."""
    suffix = os.path.splitext(written)[1]
    if suffix not in (".yaml", ".py"):
        raise UsageError(f"{written}: a config ends in .yaml or .py")
    if not os.path.isfile(path):
        raise UsageError(f"--base {path}: no such file")
    if os.path.splitext(path)[1] != suffix:
        raise UsageError(f"--base {path}: a {suffix} config needs a base that is one, too")


def _registration(source: LabelledSet) -> str:
    assert source.folders is not None  # of two folders
    images, labels = source.folders
    return (
        f"register_sem_seg_folder(\n    {source.name!r},\n    {images!r},\n"
        f"    {labels!r},\n    classes=CLASSES,\n"
        f"    ignore_label={source.ignore_label},\n"
        + (f"    stems_file={source.stems_file!r},\n" if source.stems_file else "")
        + ")"
    )


def _entry(source: LabelledSet, classes: Sequence[str]) -> dict:
    assert source.folders is not None  # of two folders
    images, labels = source.folders
    entry: dict = {
        "NAME": source.name,
        "IMAGES": images,
        "LABELS": labels,
        "CLASSES": list(classes),
    }
    entry |= {"IGNORE_LABEL": source.ignore_label} if source.ignore_label != 255 else {}
    return entry | ({"STEMS": source.stems_file} if source.stems_file else {})


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.strip().removesuffix("...").strip()
