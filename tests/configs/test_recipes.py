# ruff: noqa: SIM300 (config keys in capitals are no constants)
"""Every published recipe is the one of the reference framework's config of that row."""

import functools
import importlib.util
import pathlib
import re

import pytest
import yaml

from dnl_d2.checkpoint.sources import paddleseg
from dnl_d2.data import RandomResize, SemSegMapper
from dnl_d2.engine import load_config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PUBLISHED = {
    row["config"]: row
    for folder, rows in yaml.safe_load((CONFIGS / "published.yaml").read_text()).items()
    if folder != "coco"  # test_coco_recipes.py
    for row in rows
}
# By mmsegmentation's names: folder, method and dataset.
FOLDERS = {
    "fcn": "fcn/fcn",
    "nl": "nonlocal_net/nonlocal",
    "gc": "gcnet/gcnet",
    "dnl": "dnlnet/dnl",
    "ann": "ann/ann",
}
PER_GPU = {"cityscapes": 2, "ade20k": 4, "voc12aug": 4, "pascal-context": 4}
EVALUATED_ON = {
    "cityscapes": "cityscapes_sem_seg_val",
    "ade20k": "ade20k_150_sem_seg_val",
    "voc12aug": "voc_2012_sem_seg_val",
    "pascal-context-59": "pascal_context_59_sem_seg_val",
    "pascal-context-60": "pascal_context_60_sem_seg_val",
}
NAME = re.compile(
    r"(?P<folder>[\w-]+)/(?P<method>\w+)_r(?P<depth>\d+)(?P<vd>vd)?-d8_(?P<iters>\d+k)_"
    r"(?P<data>[\w-]+)-(?P<height>\d+)x(?P<width>\d+)"
)

# mmsegmentation's files of these names inherit from the R-50 file of half the schedule. The
# published rows, and ours, are what the names say.
HALVED = {
    "voc12aug/ann_r101-d8_40k_voc12aug-512x512",
    "pascal-context/fcn_r101-d8_80k_pascal-context-60-480x480",
}


def reference_file(name):
    """mmsegmentation's config file of a row, or None where it has none."""
    parts = NAME.fullmatch(name)
    spec = importlib.util.find_spec("mmseg")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / ".mim" / "configs"
    if parts["vd"] or parts["method"] not in FOLDERS:
        return None
    data = parts["data"].replace("pascal-context-60", "pascal-context")
    file = (
        f"{FOLDERS[parts['method']]}_r{parts['depth']}-d8_4xb{PER_GPU[parts['folder']]}-"
        f"{parts['iters']}_{data}-{parts['height']}x{parts['width']}.py"
    )
    return folder / file if (folder / file).is_file() else None


WITH_REFERENCE = [name for name in PUBLISHED if reference_file(name)]


@functools.cache
def reference(name):
    """mmsegmentation's config of a row, for all tests: not to be changed."""
    from mmengine import Config

    return Config.fromfile(str(reference_file(name)))


def test_every_leaf_has_a_row_and_every_row_a_leaf():
    leaves = {
        f"{folder}/{file.stem}" for folder in PER_GPU for file in (CONFIGS / folder).glob("*.yaml")
    }
    assert leaves == set(PUBLISHED)
    assert len(leaves) == 109


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_its_name_says(name):
    parts = NAME.fullmatch(name)
    cfg = load_config(str(CONFIGS / f"{name}.yaml"))
    assert cfg.MODEL.RESNETS.DEPTH == int(parts["depth"])
    assert cfg.SOLVER.MAX_ITER == int(parts["iters"][:-1]) * 1000
    assert tuple(cfg.INPUT.CROP.SIZE) == (int(parts["height"]), int(parts["width"]))
    assert cfg.INPUT.CROP.ENABLED
    assert cfg.OUTPUT_DIR == f"output/{name}"
    assert list(cfg.DATASETS.TEST) == [EVALUATED_ON[parts["data"]]]
    split = "trainaug" if parts["data"] == "voc12aug" else "train"
    expected = EVALUATED_ON[parts["data"]].removesuffix("val") + split
    assert list(cfg.DATASETS.TRAIN) == [expected]
    assert cfg.SOLVER.IMS_PER_BATCH == 4 * PER_GPU[parts["folder"]]
    head = cfg.MODEL.SEM_SEG_HEAD
    blocks = {"fcn": "", "ann": ""}
    assert head.CONTEXT.NAME == blocks.get(parts["method"], parts["method"])
    assert head.NAME == ("AsymmetricHead" if parts["method"] == "ann" else "ContextHead")
    assert cfg.MODEL.RESNETS.SHORTCUT == ("avg_pool" if parts["vd"] else "conv")
    weights = cfg.MODEL.WEIGHTS
    assert weights == "" if parts["vd"] else f"/resnet{parts['depth']}_v1c-" in weights


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_the_reference_frameworks(name):
    if name not in WITH_REFERENCE:
        pytest.skip("mmsegmentation has no config of this row")
    theirs = reference(name)
    ours = load_config(str(CONFIGS / f"{name}.yaml"))
    head, solver = ours.MODEL.SEM_SEG_HEAD, ours.SOLVER
    model = theirs.model
    optimizer = theirs.optim_wrapper.optimizer
    # The network.
    assert head.NUM_CLASSES == model.decode_head.num_classes
    assert head.CONVS_DIM == model.decode_head.channels
    assert head.DROPOUT == model.decode_head.dropout_ratio
    assert head.ALIGN_CORNERS == model.decode_head.align_corners
    assert head.ALIGN_CORNERS == model.auxiliary_head.align_corners
    assert head.AUXILIARY.LOSS_WEIGHT == model.auxiliary_head.loss_decode.loss_weight
    for part in (model.decode_head, model.auxiliary_head):
        assert part.loss_decode.type == "CrossEntropyLoss" and not part.loss_decode.use_sigmoid
    assert dict(head.LOSS_TERMS) == {"CROSS_ENTROPY": 1.0, "DICE": 0.0, "LOVASZ": 0.0}
    assert not head.LOSS_OHEM.ENABLED and not list(head.LOSS_CLASS_WEIGHTS)
    assert head.LOSS_AVERAGE == "all"  # its avg_non_ignore is off by default
    assert not model.decode_head.loss_decode.get("avg_non_ignore", False)
    assert list(ours.MODEL.PIXEL_MEAN) == model.data_preprocessor.mean
    assert list(ours.MODEL.PIXEL_STD) == model.data_preprocessor.std
    assert ours.INPUT.FORMAT == "RGB" and model.data_preprocessor.bgr_to_rgb
    assert ours.MODEL.RESNETS.DEPTH == model.backbone.depth
    # The optimiser and its schedule.
    assert (solver.BASE_LR, solver.MOMENTUM) == (optimizer.lr, optimizer.momentum)
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == optimizer.weight_decay
    assert solver.WEIGHT_DECAY_BIAS in (None, optimizer.weight_decay)
    assert (optimizer.type, solver.NESTEROV, solver.BIAS_LR_FACTOR) == ("SGD", False, 1.0)
    assert solver.CLIP_GRADIENTS.ENABLED is False and not theirs.optim_wrapper.get("clip_grad")
    (schedule,) = theirs.param_scheduler
    assert (schedule.type, schedule.begin, solver.WARMUP_ITERS) == ("PolyLR", 0, 0)
    assert (schedule.power, schedule.eta_min) == (solver.POLY_LR_POWER, solver.MIN_LR)
    assert schedule.end == theirs.train_cfg.max_iters
    assert schedule.end * (2 if name in HALVED else 1) == solver.MAX_ITER
    if name not in HALVED:
        assert ours.TEST.EVAL_PERIOD == theirs.train_cfg.val_interval
        assert solver.CHECKPOINT_PERIOD == theirs.default_hooks.checkpoint.interval
    no_decay = theirs.optim_wrapper.get("paramwise_cfg", {}).get("custom_keys", {})
    names = {"theta": "context_block.query", "phi": "context_block.key"}
    assert set(solver.NO_DECAY) == {names[key] for key in no_decay}
    assert all(rule == {"wd_mult": 0.0} for rule in no_decay.values())
    # Images.
    assert solver.IMS_PER_BATCH == 4 * theirs.train_dataloader.batch_size
    dataset = theirs.train_dataloader.dataset
    dataset = dataset.get("datasets", [dataset])[0]
    steps = {step.type: step for step in dataset.pipeline}
    order = ["RandomResize", "RandomCrop", "RandomFlip", "PhotoMetricDistortion"]
    assert [name for name in steps if name in order] == order
    assert steps["RandomResize"].keep_ratio and not ours.DATALOADER.ASPECT_RATIO_GROUPING
    assert model.data_preprocessor.size == steps["RandomCrop"].crop_size
    assert (model.data_preprocessor.pad_val, model.data_preprocessor.seg_pad_val) == (0, 255)
    assert head.IGNORE_VALUE == 255
    assert tuple(ours.INPUT.RESIZE.BASE_SIZE) == steps["RandomResize"].scale
    assert tuple(ours.INPUT.RESIZE.RATIO_RANGE) == steps["RandomResize"].ratio_range
    assert tuple(ours.INPUT.CROP.SIZE) == steps["RandomCrop"].crop_size
    assert ours.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA == steps["RandomCrop"].cat_max_ratio
    assert ours.INPUT.RANDOM_FLIP == "horizontal" and steps["RandomFlip"].prob == 0.5
    assert ours.INPUT.COLOR_AUG_SSD and "PhotoMetricDistortion" in steps
    (test,) = [s for s in theirs.test_dataloader.dataset.pipeline if s.type == "Resize"]
    assert test.scale == tuple(ours.INPUT.RESIZE.BASE_SIZE)
    # The way to predict.
    slides = model.test_cfg.mode == "slide"
    assert tuple(ours.TEST.SLIDE.WINDOW) == (model.test_cfg.crop_size if slides else ())
    assert tuple(ours.TEST.SLIDE.STRIDE) == (model.test_cfg.stride if slides else ())


def test_enough_rows_are_compared_with_the_reference():
    figures = [name for name, row in PUBLISHED.items() if row.get("source") == "mmsegmentation"]
    assert set(figures) <= set(WITH_REFERENCE) and len(figures) == 80


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_mapper_resizes_and_crops(name):
    cfg = load_config(str(CONFIGS / f"{name}.yaml"))
    train = SemSegMapper(cfg, True).augmentations.augs
    kinds = [type(step).__name__ for step in train]
    colours = "ColorJitter" if "vd-d8" in name else "PhotometricDistortion"
    assert kinds == ["ResizedCrop", "RandomFlip", colours]
    test = SemSegMapper(cfg, False).augmentations.augs
    assert all(isinstance(step, RandomResize) for step in test)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "vd-d8" in name])
def test_paddleseg_rows_have_the_settings_of_its_files(name):
    method = {"gc": "gcnet"}.get(NAME.fullmatch(name)["method"], NAME.fullmatch(name)["method"])
    (source,) = [s for s in paddleseg.SOURCES if s.name == f"paddleseg-{method}"]
    cfg = load_config(str(CONFIGS / f"{name}.yaml"))
    assert source.settings
    for key, value in source.settings.items():
        assert functools.reduce(getattr, key.split("."), cfg) == value, key
    assert tuple(cfg.MODEL.PIXEL_MEAN) == source.input_format.mean
    assert tuple(cfg.MODEL.PIXEL_STD) == source.input_format.std
    # configs/_base_ of PaddleSeg 2.x. Schedules end at 0 but where a file says 1e-5.
    ends_low = {("gcnet", "cityscapes"), ("gcnet", "voc12aug"), ("ann", "cityscapes")}
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == (0.01, 4e-5)
    low = (method, NAME.fullmatch(name)["folder"]) in ends_low
    assert cfg.SOLVER.MIN_LR == (1e-5 if low else 0.0)
    assert cfg.MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM == (512 if method == "ann" else 256)
    assert cfg.INPUT.RESIZE.RATIO_STEP == 0.25 and cfg.INPUT.COLOR_JITTER == 0.4
    assert cfg.MODEL.SEM_SEG_HEAD.LOSS_AVERAGE == "valid"
