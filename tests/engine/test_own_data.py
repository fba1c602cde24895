"""Own folders: a few lines of YAML or LazyConfig, trained and evaluated."""

import json
import os
from pathlib import Path

import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.data import register_sem_seg_folder
from dnl_d2.engine import Trainer, load_config, read_config, run
from dnl_d2.engine.lazy_task import task_of_lazy
from dnl_d2.errors import UsageError
from dnl_d2.own_data.segmentor_config import (
    lazy_config,
    weight_lines,
    yaml_config,
)
from dnl_d2.own_data.segmentor_recipe import SegmentorRecipe, fitting_crop
from dnl_d2.validation import folder_set
from dnl_d2.validation.splits import check_splits
from tests.engine.runs import (  # noqa: F401
    SMALL_LAZY,
    SMALL_YAML,
    arguments,
    as_lazy,
    as_yaml,
    environment,
    forget,
)
from tests.engine.runs import lazy_config as lazy_config_of_generated

COMMON = Path(__file__).parent.parent.parent / "configs" / "common"
CLASSES = ["background", "texture_a", "texture_b", "paired", "red", "green", "cyan", "violet"]
TINY_YAML = as_yaml(SMALL_YAML, length=2, batch=2, MODEL__DEVICE="cpu")
TINY_LAZY = as_lazy(SMALL_LAZY, length=2, batch=2, train__device="cpu")
pytestmark = pytest.mark.usefixtures("environment")


def entry(split, **changes):
    """An item of DATASETS.FOLDERS; None takes a key out."""
    made = {
        "NAME": f"own_{split}",
        "IMAGES": f"generated/{split}",
        "LABELS": f"generated/{split}annot",
        "CLASSES": CLASSES,
    }
    return {k: v for k, v in (made | changes).items() if v is not None}


@pytest.fixture
def write(tmp_path):
    def make(folders, classes=8):
        path = tmp_path / "mine.yaml"
        path.write_text(f"""
_BASE_: {COMMON}/camvid_r18w32-d8.yaml
DATASETS:
  FOLDERS: {json.dumps(folders)}
  TRAIN: [own_train]
  TEST: [own_val]
MODEL: {{SEM_SEG_HEAD: {{NUM_CLASSES: {classes}}}}}
""")
        return str(path)

    return make


def test_yaml_trains_evaluates_and_its_dump_loads_again(write, tmp_path, datasets):
    # As editors on Windows do: a mark at the start, other line ends.
    (datasets / "names.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*CLASSES, "", ""]).encode())
    path = write([entry("train", CLASSES="names.txt"), entry("val")])
    out = tmp_path / "out"
    results = run(load_config(path, [*TINY_YAML, "OUTPUT_DIR", str(out)]), arguments())
    assert {f"IoU-{name}" for name in CLASSES} < set(results["sem_seg"])

    forget("own_train", "own_val")
    options = ["MODEL.WEIGHTS", str(out / "model_final.pth"), "OUTPUT_DIR", str(tmp_path / "eval")]
    dumped = load_config(str(out / "config.yaml"), options)
    assert MetadataCatalog.get("own_train").stuff_classes == CLASSES
    again = run(dumped, arguments(eval_only=True))
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], nan_ok=True)


def test_lazy_config_registers_for_itself(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f'''
from detectron2.config import LazyConfig
from dnl_d2.data import register_sem_seg_folder

for split in ("train", "val"):
    folders = f"generated/{{split}}", f"generated/{{split}}annot"
    register_sem_seg_folder(f"own_{{split}}", *folders, classes={CLASSES})
base = "{os.path.relpath(COMMON, tmp_path)}/camvid_r18w32_d8.py"
keys = ("dataloader", "lr_multiplier", "model", "optimizer", "train")
dataloader, lr_multiplier, model, optimizer, train = LazyConfig.load_rel(base, keys)
dataloader.train.dataset.names, dataloader.test.dataset.names = "own_train", "own_val"
dataloader.train.mapper.dataset_ignore_label = 255
model.sem_seg_head.num_classes = 8
''')
    cfg = load_config(str(path), [*TINY_LAZY, f"train.output_dir={tmp_path / 'out'}"])
    results = run(cfg, arguments())
    assert {f"IoU-{name}" for name in CLASSES} < set(results["sem_seg"])


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("make", [yaml_config, lazy_config])
def test_the_lines_that_check_dataset_gives_train(datasets, tmp_path, make, validate):
    lazy = make is lazy_config
    sets = [
        folder_set(f"own_{split}", *(str(datasets / f"generated/{split}{end}") for end in ends))
        for split, ends in (("train", ("", "annot")), ("val", ("", "annot")))
    ]
    base = COMMON / ("camvid_r18w32_d8.py" if lazy else "camvid_r18w32-d8.yaml")
    text = make(
        sets[0],
        sets[1] if validate else None,
        SegmentorRecipe(
            base=os.path.relpath(base, tmp_path),
            classes=CLASSES,
            base_size=[96, 72],
            output_dir=str(tmp_path / "out"),
            weights=[1.0] * 8,
        ),
    )
    path = tmp_path / f"mine{base.suffix}"
    path.write_text(text)
    tiny = [x for x in TINY_LAZY if validate or ".test." not in x] if lazy else TINY_YAML
    results = run(load_config(str(path), tiny), arguments())
    assert ("sem_seg" in results) == validate
    assert (tmp_path / "out" / "model_final.pth").is_file()


def test_the_weight_lines_are_read(tmp_path):
    weights = [0.5, 1.0, 2.25]
    in_yaml, in_lazy = weight_lines(weights)
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"_BASE_: {COMMON}/camvid_r18w32-d8.yaml\nMODEL:\n  SEM_SEG_HEAD:\n    {in_yaml}\n"
    )
    assert list(load_config(str(path)).MODEL.SEM_SEG_HEAD.LOSS_CLASS_WEIGHTS) == weights
    base = COMMON.parent / "ade20k" / "dnl_r50-d8_80k_ade20k-512x512.py"
    cfg = load_config(str(base), [in_lazy.replace(" ", "")])
    assert list(instantiate(cfg.model.sem_seg_head.loss).class_weights) == weights


def test_another_number_of_classes_is_one_line(write, tmp_path):
    path = write([entry("train"), entry("val")], classes=11)
    with pytest.raises(UsageError, match=r"own_train has 8 classes.*num_classes=11"):
        run(load_config(path, [*TINY_YAML, "OUTPUT_DIR", str(tmp_path / "out")]), arguments())


def test_the_same_classes_in_another_order_are_one_line(write, tmp_path):
    path = write([entry("train"), entry("val", CLASSES=CLASSES[::-1])])
    with pytest.raises(UsageError, match=r"own_train and own_val differ in their classes .* 0 on"):
        run(load_config(path, [*TINY_YAML, "OUTPUT_DIR", str(tmp_path / "out")]), arguments())


@pytest.mark.parametrize("split", ["train", "val"])
def test_evaluation_on_what_is_trained_with_is_told(write, split, caplog):
    folders = {"IMAGES": f"generated/{split}", "LABELS": f"generated/{split}annot"}
    path = write([entry("train"), entry("val", **folders)])
    spec = read_config(load_config(path, TINY_YAML), train=True)
    sets = {"DATASETS.TRAIN": spec.train_sets}, {"DATASETS.TEST": spec.test_sets}
    check_splits(*sets, eval_only=False, task=spec.task, max_files=0)
    told = "dataset own_val, to evaluate on, has the files of own_train" in caplog.text
    assert told == (split == "train")


def test_loading_twice_registers_anew(write):
    load_config(write([entry("train"), entry("val")]))
    load_config(write([entry("train", IGNORE_LABEL=7, COLORS=[[1, 2, i] for i in range(8)])]))
    meta = MetadataCatalog.get("own_train")
    assert meta.ignore_label == 7 and meta.stuff_colors[2] == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IMAGE": "x"}, r"FOLDERS\[1\] has no key 'IMAGE'; did you mean IMAGES\?"),
        ({"images": "x"}, r"FOLDERS\[1\] has no key 'images'; did you mean IMAGES\?"),
        ({"NAME": None, "IMAGES": None}, r"FOLDERS\[1\] lacks NAME, IMAGES"),
        ({"CLASSES": None}, r"FOLDERS\[1\] lacks CLASSES: an entry with LABELS needs"),
        ({"LABELS": ""}, r"FOLDERS\[1\]\.LABELS is a text"),
        ({"IMAGES": 3}, r"FOLDERS\[1\]\.IMAGES is a text, not 3"),
        ({"CLASSES": 8}, r"FOLDERS\[1\]\.CLASSES is a list of names"),
        ({"CLASSES": []}, r"FOLDERS\[1\]\.CLASSES names no class"),
        ({"CLASSES": ["a", True]}, r"FOLDERS\[1\]\.CLASSES: True is no text"),
        ({"CLASSES": ["a", "b", "a"]}, r"FOLDERS\[1\]\.CLASSES: class 'a' is there twice"),
        ({"CLASSES": ["a", " "]}, r"FOLDERS\[1\]\.CLASSES: class 1 has no name"),
        ({"CLASSES": "gone.txt"}, r"FOLDERS\[1\]\.CLASSES: .*gone\.txt cannot be read"),
        ({"COLORS": [[1, 2]]}, r"FOLDERS\[1\]\.COLORS is a list of \[red"),
        ({"COLORS": [[1, 2, 256]]}, r"FOLDERS\[1\]\.COLORS is a list of \[red"),
        ({"COLORS": [[1, 2, 3]]}, r"FOLDERS\[1\]\.COLORS has 1 colours for 8"),
        ({"IGNORE_LABEL": "255"}, r"FOLDERS\[1\]\.IGNORE_LABEL is a whole number"),
        ({"STEMS": 3}, r"FOLDERS\[1\]\.STEMS is a text, not 3"),
        ({"NAME": "own_train"}, r"FOLDERS\[1\]\.NAME: 'own_train' is there twice"),
        ({"NAME": "camvid_sem_seg_val"}, r"FOLDERS\[1\]\.NAME: there is a dataset"),
    ],
)
def test_a_wrong_entry_names_file_and_key(write, changes, message):
    with pytest.raises(UsageError, match=message) as error:
        load_config(write([entry("train"), entry("val", **changes)]))
    assert "\n" not in str(error.value) and "mine.yaml" in str(error.value)
    assert "own_train" not in DatasetCatalog.list()


NEW = {"LABELS": None, "CLASSES": None}


def lazy_unlabelled(folder, split, **more):
    """A LazyConfig with a set of pictures alone."""
    register_sem_seg_folder("own_new", f"generated/{split}")
    names = {f"dataloader.{split if split == 'train' else 'test'}.dataset.names": "own_new"}
    return lazy_config_of_generated(folder, **names, train__device="cpu", **more)


@pytest.mark.parametrize("lazy", [False, True])
def test_pictures_alone_are_listed_and_read(write, tmp_path, datasets, lazy):
    if lazy:
        cfg = lazy_unlabelled(tmp_path, "val")
        loader = instantiate(cfg.dataloader.test)
    else:
        cfg = load_config(
            write([entry("train"), entry("val"), entry("val", NAME="own_new", **NEW)])
        )
        loader = Trainer.build_test_loader(cfg, "own_new")
    read = [inputs for batch in loader for inputs in batch]
    assert [x["file_name"] for x in read] == sorted(map(str, datasets.glob("generated/val/*")))
    assert all(x["image"].shape[0] == 3 and "sem_seg" not in x for x in read)
    assert (read[0]["height"], read[0]["width"]) == (72, 96)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("checked", [0, 10])
def test_pictures_alone_are_refused_before_training(write, tmp_path, split, lazy, checked):
    if lazy:
        cfg = lazy_unlabelled(tmp_path, split, train__check_labels=checked)
    else:
        entries = [entry(each, **(NEW if each == split else {})) for each in ("train", "val")]
        cfg = load_config(write(entries), [*TINY_YAML, "DATASETS.CHECK_LABELS", str(checked)])
        cfg.OUTPUT_DIR = str(tmp_path / "out")
    key = r"(DATASETS\.TEST|test\.dataset\.names)" if split == "val" else "(TRAIN|train)"
    with pytest.raises(
        UsageError, match=rf"{key}.*: dataset own_\w+ has no labels.*LABELS of"
    ) as error:
        run(cfg, arguments(eval_only=split == "val" and checked == 0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folders", ["own", {"NAME": "own"}, ["own"]])
def test_folders_of_another_type_are_named(write, folders):
    with pytest.raises(UsageError, match=r"FOLDERS"):
        load_config(write(folders))


def test_a_class_file_that_is_no_text_is_named(write, datasets):
    (datasets / "names.bin").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UsageError, match=r"CLASSES: .*names\.bin cannot be read"):
        load_config(write([entry("train", CLASSES="names.bin")]))


def test_an_empty_line_among_the_classes_is_named(write, datasets):
    (datasets / "names.txt").write_text("a\n\nb\n")
    with pytest.raises(UsageError, match=r"CLASSES \(.*names\.txt\): class 1 has no name"):
        load_config(write([entry("train", CLASSES="names.txt")]))


@pytest.mark.parametrize("base", ["camvid_r18w32-d8.yaml", "camvid_r18w32_d8.py"])
def test_the_crop_fits_the_pictures(base):
    crop = read_config(load_config(str(COMMON / base)), train=True).task.crop_size
    assert crop == (240, 320)
    assert fitting_crop(crop, (40, 56)) == [40, 56]
    assert fitting_crop(crop, (300, 100)) == [240, 100]
    assert fitting_crop(crop, (240, 320)) == [] == fitting_crop(crop, (600, 800))
    options = ["INPUT.CROP.ENABLED", "False"]
    if base.endswith(".py"):
        options = ["dataloader.train.mapper.augmentations.crop_size=null"]
    crop = read_config(load_config(str(COMMON / base), options), train=True).task.crop_size
    assert crop == () and fitting_crop(crop, (40, 56)) == []


def test_a_dataset_of_ones_own_without_class_names_says_what_to_set(datasets):
    val = datasets / "generated"
    record = {"file_name": str(val / "val/00000.png"), "sem_seg_file_name": "x.png"}
    DatasetCatalog.register("own_nameless", lambda: [record])
    MetadataCatalog.get("own_nameless").evaluator_type = "sem_seg"
    cfg = lazy_config_of_generated("", dataloader__test__dataset__names="own_nameless")
    with pytest.raises(UsageError, match=r"own_nameless has no class names: set stuff_classes"):
        check_splits(
            {}, {"TEST": ["own_nameless"]}, eval_only=True, task=task_of_lazy(cfg), max_files=0
        )


def test_a_list_of_test_sets_is_refused_before_the_training():
    cfg = lazy_config_of_generated("out", dataloader__test__dataset__names="[a_val,b_val]")
    with pytest.raises(UsageError, match=r"dataset.names\) is a list, a_val, b_val: give one name"):
        read_config(cfg, train=True)
