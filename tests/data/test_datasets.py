"""The readers of the published datasets, on prepared miniatures."""

import ast
import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import cityscapes as detectron2_cityscapes
from detectron2.data.datasets import load_sem_seg

from dnl_d2.data import read_label
from dnl_d2.data.datasets import voc
from dnl_d2.errors import UsageError
from dnl_d2.preparation import prepare_dataset
from dnl_d2.validation.label_maps import check_sem_seg_dataset
from tests.miniatures import BUILDERS

# Name -> pictures in the miniature, module and class of mmsegmentation with its classes.
DATASETS = {
    "cityscapes_sem_seg_train": (3, "cityscapes", "CityscapesDataset"),
    "cityscapes_sem_seg_val": (2, "cityscapes", "CityscapesDataset"),
    "cityscapes_sem_seg_test": (1, "cityscapes", "CityscapesDataset"),
    "ade20k_150_sem_seg_train": (3, "ade", "ADE20KDataset"),
    "ade20k_150_sem_seg_val": (2, "ade", "ADE20KDataset"),
    "voc_2012_sem_seg_train": (2, "voc", "PascalVOCDataset"),
    "voc_2012_sem_seg_trainaug": (4, "voc", "PascalVOCDataset"),
    "voc_2012_sem_seg_val": (2, "voc", "PascalVOCDataset"),
    "pascal_context_60_sem_seg_train": (3, "pascal_context", "PascalContextDataset"),
    "pascal_context_60_sem_seg_val": (2, "pascal_context", "PascalContextDataset"),
    "pascal_context_59_sem_seg_train": (3, "pascal_context", "PascalContextDataset59"),
    "pascal_context_59_sem_seg_val": (2, "pascal_context", "PascalContextDataset59"),
}
ADE, VOC, CONTEXT = "ADEChallengeData2016", "VOCdevkit/VOC2012", "VOCdevkit/VOC2010"
CITY = "cityscapes/{}/train/aachen/aachen_000000_000019_{}.png"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("prepared")
    truth = {name: build(root) for name, build in BUILDERS.items()}
    for name in BUILDERS:
        prepare_dataset(name, root=str(root))
    return root, truth


@pytest.fixture
def root(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared miniatures, to be damaged."""
    copy = tmp_path / "datasets"
    shutil.copytree(prepared[0], copy)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(copy))
    return copy


def stem(path: str) -> str:
    name = os.path.splitext(os.path.basename(path))[0]
    return name.removesuffix("_gtFine_labelTrainIds").removesuffix("_leftImg8bit")


@pytest.mark.parametrize("name", DATASETS)
def test_records_have_the_labels_and_sizes_of_their_pictures(name, prepared, monkeypatch):
    root, truth = prepared
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    records = DatasetCatalog.get(name)
    assert len(records) == DATASETS[name][0]
    expected = truth[next(kind for kind in truth if name.startswith(kind))]
    for record in records:
        label = expected[stem(record["file_name"])]
        assert (record["height"], record["width"]) == label.shape
        if name.endswith("test"):
            assert "sem_seg_file_name" not in record
            continue
        assert stem(record["sem_seg_file_name"]) == stem(record["file_name"])
        if "_59_" in name:
            label = label - np.uint8(1)  # 0 becomes 255
        np.testing.assert_array_equal(read_label(record["sem_seg_file_name"]), label)
    meta = MetadataCatalog.get(name)
    if not name.endswith("test"):
        check_sem_seg_dataset(
            records, num_classes=len(meta.stuff_classes), ignore_label=meta.ignore_label, name=name
        )


@pytest.mark.parametrize("name", DATASETS)
def test_classes_and_colours_are_those_of_published_weights(name):
    module, owner = DATASETS[name][1:]
    package = importlib.util.find_spec("mmseg").submodule_search_locations[0]
    tree = ast.parse(Path(package, "datasets", f"{module}.py").read_text())
    body = next(node for node in tree.body if getattr(node, "name", "") == owner).body
    info = next(node.value for node in body if isinstance(node, ast.Assign))
    theirs = {word.arg: ast.literal_eval(word.value) for word in info.keywords}
    meta = MetadataCatalog.get(name)
    assert meta.stuff_classes == [each.strip() for each in theirs["classes"]]
    assert [list(color) for color in meta.stuff_colors] == theirs["palette"]
    assert meta.ignore_label == 255
    kind = "cityscapes_sem_seg" if "cityscapes" in name else "sem_seg"
    assert meta.evaluator_type == kind


def test_cityscapes_reads_what_detectron2_reads(root):
    theirs = detectron2_cityscapes.load_cityscapes_semantic(
        str(root / "cityscapes/leftImg8bit/val"), str(root / "cityscapes/gtFine/val")
    )
    ours = DatasetCatalog.get("cityscapes_sem_seg_val")
    assert ours == sorted(theirs, key=lambda record: record["file_name"])
    meta = MetadataCatalog.get("cityscapes_sem_seg_val")
    assert meta.gt_dir == str(root / "cityscapes/gtFine/val")
    assert meta.image_dir == str(root / "cityscapes/leftImg8bit/val")


def test_ade20k_reads_what_detectron2_reads(root):
    base = root / "ADEChallengeData2016"
    theirs = load_sem_seg(
        str(base / "annotations_detectron2/training"),
        str(base / "images/training"),
        gt_ext="png",
        image_ext="jpg",
    )
    ours = DatasetCatalog.get("ade20k_150_sem_seg_train")
    files = ("file_name", "sem_seg_file_name")
    assert [[record[key] for key in files] for record in ours] == [
        [record[key] for key in files] for record in theirs
    ]


def test_the_root_may_start_with_a_tilde(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("DETECTRON2_DATASETS", f"~/{root.name}")
    assert len(DatasetCatalog.get("ade20k_150_sem_seg_val")) == 2
    assert "0 labels written, 5 were there already" in prepare_dataset("ade20k")


@pytest.mark.parametrize(
    ("name", "gone", "hint"),
    [
        ("cityscapes_sem_seg_train", "cityscapes/leftImg8bit/train", "prepare_dataset.py city"),
        ("cityscapes_sem_seg_val", "cityscapes/gtFine/val", "{leftImg8bit,gtFine}"),
        ("cityscapes_sem_seg_test", "cityscapes/leftImg8bit/test", "CITY"),
        ("ade20k_150_sem_seg_train", f"{ADE}/images/training", "{images,annotations}"),
        (
            "ade20k_150_sem_seg_val",
            f"{ADE}/annotations_detectron2/validation",
            "prepare_dataset.py ade20k",
        ),
        ("voc_2012_sem_seg_train", f"{VOC}/SegmentationClass", "VOCtrainval_11-May"),
        ("voc_2012_sem_seg_trainaug", f"{VOC}/SegmentationClassAug", "prepare_dataset.py voc"),
        (
            "voc_2012_sem_seg_trainaug",
            f"{VOC}/ImageSets/Segmentation/trainaug.txt",
            "prepare_dataset.py voc",
        ),
        (
            "pascal_context_59_sem_seg_val",
            f"{CONTEXT}/SegmentationClassContext59",
            "prepare_dataset.py pascal_context",
        ),
        (
            "pascal_context_60_sem_seg_val",
            f"{CONTEXT}/ImageSets/SegmentationContext/val.txt",
            "prepare_dataset.py pascal_context",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_get_it(name, gone, hint, root):
    path = root / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(UsageError) as caught:
        DatasetCatalog.get(name)
    message = str(caught.value)
    assert f"{path} does not exist: expected $DETECTRON2_DATASETS/" in message and hint in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        (
            "cityscapes_sem_seg_train",
            CITY.format("gtFine", "gtFine_labelTrainIds"),
            r"1 of 3 images in .* have no \*_gtFine_labelTrainIds.png in .*: "
            r"aachen/aachen_000000_000019; .*prepare_dataset",
        ),
        (
            "cityscapes_sem_seg_train",
            CITY.format("leftImg8bit", "leftImg8bit"),
            r"1 of 3 labels in .* have no image in .*: aachen/aachen_000000_000019; ",
        ),
        (
            "ade20k_150_sem_seg_val",
            f"{ADE}/annotations_detectron2/validation/ADE_val_00000002.png",
            r"1 of 2 images in .* have no \*\.png in .*: ADE_val_00000002; .*prepare_dataset",
        ),
        (
            "ade20k_150_sem_seg_val",
            f"{ADE}/images/validation/ADE_val_00000002.jpg",
            r"1 of 2 labels in .* have no \*\.jpg in .*: ADE_val_00000002; ",
        ),
        (
            "voc_2012_sem_seg_trainaug",
            f"{VOC}/SegmentationClassAug/2008_000001.png",
            r"1 of 4 pictures of .*trainaug\.txt have no \*\.png in .*SegmentationClass or .*Aug: "
            r"2008_000001; .*prepare_dataset",
        ),
        (
            "pascal_context_59_sem_seg_val",
            f"{CONTEXT}/JPEGImages/2008_000004.jpg",
            r"1 of 2 pictures of .*val\.txt have no \*\.jpg in .*JPEGImages: 2008_000004; ",
        ),
    ],
)
def test_a_picture_without_its_counterpart_is_named(name, gone, message, root):
    (root / gone).unlink()
    with pytest.raises(UsageError, match=message):
        DatasetCatalog.get(name)


def test_a_folder_without_pictures_is_named(root):
    for path in (root / "cityscapes/leftImg8bit/val/munster").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"leftImg8bit/val holds no \*/\*_leftImg8bit\.png"):
        DatasetCatalog.get("cityscapes_sem_seg_val")


def test_stray_files_are_passed_over(root):
    for stray in ("leftImg8bit/license.txt", "leftImg8bit/val/._munster", "gtFine/val/.DS_Store"):
        (root / "cityscapes" / stray).write_bytes(b"stray")
    (root / "cityscapes/leftImg8bit/val/munster/._x_leftImg8bit.png").write_bytes(b"stray")
    assert len(DatasetCatalog.get("cityscapes_sem_seg_val")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"/JPEGImages/a.jpg /SegmentationClassAug/a.png\n", "one picture name a line"),
        (b"\n", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_list_in_another_format_is_refused(content, message, root):
    (root / f"{VOC}/ImageSets/Segmentation/val.txt").write_bytes(content)
    with pytest.raises(UsageError, match=rf"list .*/val\.txt .*{message}"):
        DatasetCatalog.get("voc_2012_sem_seg_val")


def test_colours_of_voc_follow_from_the_index():
    # From the examples of the development kit.
    assert voc.colormap(256)[0] == (0, 0, 0)
    assert voc.colormap(256)[1] == (128, 0, 0)
    assert voc.colormap(256)[255] == (224, 224, 192)


def test_endings_may_be_in_capitals(root):
    for path in [*root.rglob("*.jpg"), *root.rglob("*_leftImg8bit.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    for name, (count, *_) in DATASETS.items():
        assert len(DatasetCatalog.get(name)) == count
