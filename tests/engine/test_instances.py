"""Detectors in both engines: what is checked first, tests at several scales, the best weights."""

import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import GeneralizedRCNNWithTTA
from omegaconf import OmegaConf
from torch import nn

from dnl_d2.data import register_coco_dataset
from dnl_d2.engine import Trainer, load_config, run
from dnl_d2.engine.from_lazy import _evaluate
from dnl_d2.engine.from_yaml import task_of_yaml
from dnl_d2.engine.lazy_task import task_of_lazy
from dnl_d2.engine.multi_scale import detector_at_scales
from dnl_d2.engine.spec import DetectorScales
from dnl_d2.errors import UsageError, one_line
from dnl_d2.synthetic import generate_instances
from dnl_d2.validation.splits import check_datasets, check_splits
from tests.engine.runs import (  # noqa: F401
    SMALL_DETECTOR,
    arguments,
    as_lazy,
    as_yaml,
    environment,
    pictures,
    yaml_config,
)

CONFIGS = Path(__file__).parents[2] / "configs"
YAML = CONFIGS / "generated/mask_rcnn_r18w32_fpn_300_generated-instances.yaml"
LAZY = CONFIGS / "coco/mask_rcnn_r50_fpn_syncbn_1x.py"


@pytest.fixture
def config(environment, pictures, tmp_path, monkeypatch):  # noqa: F811
    """Returns ``config(KEY=value)``, with ``__`` for points: of a YAML run that takes a second."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))

    def load(**more):
        return load_config(str(YAML), as_yaml(SMALL_DETECTOR, output=tmp_path / "out", **more))

    return load


def both_have_detections(folder):
    """The file of the test at one scale, and that at several."""
    for kind in ("inference", "inference_TTA"):
        path = folder / kind / "generated_instances_val/coco_instances_results.json"
        assert len(json.loads(path.read_text())) > 10


def test_training_and_a_test_at_several_scales(config, tmp_path):
    # The default scales of TEST.AUG do not matter to a run that trains.
    trained = run(config(TEST__AUG__ENABLED=True), arguments())
    assert set(trained) == {"bbox", "segm"}
    weights = str(tmp_path / "out/model_final.pth")
    results = run(
        config(TEST__AUG__ENABLED=True, MODEL__WEIGHTS=weights), arguments(eval_only=True)
    )
    assert set(results) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    assert str(results["segm"]) == str(trained["segm"])
    both_have_detections(tmp_path / "out")
    plain = run(config(MODEL__WEIGHTS=weights), arguments(eval_only=True))
    assert str(dict(plain)) == str({key: results[key] for key in plain})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"MODEL__META_ARCHITECTURE": "RetinaNet"}, "RetinaNet does not average over scales"),
        ({"MODEL__META_ARCHITECTURE": "PanopticFPN"}, "PanopticFPN does not average"),
        ({"MODEL__KEYPOINT_ON": True}, "not with MODEL.KEYPOINT_ON"),
    ],
)
def test_models_that_cannot_average_say_so(config, options, message):
    options |= {"MODEL__RETINANET__NUM_CLASSES": 7, "TEST__AUG__ENABLED": True}
    with pytest.raises(UsageError, match=f"TEST.AUG.ENABLED: {message}"):
        run(config(**options), arguments(eval_only=True))


@pytest.mark.parametrize("eval_only", [False, True])
@pytest.mark.parametrize(
    "architecture, key",
    [
        ("GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("RetinaNet", "MODEL.RETINANET.NUM_CLASSES"),
    ],
)
def test_the_number_of_classes_is_checked_first(config, architecture, key, eval_only):
    cfg = config(MODEL__META_ARCHITECTURE=architecture, **{key.replace(".", "__"): 80})
    with pytest.raises(UsageError, match=f"7 categories, but .* 80: set {key} to 7"):
        run(cfg, arguments(eval_only=eval_only))


def lazy_config(folder, **more):
    options = {
        "train.device": "cpu",
        "train.init_checkpoint": "",
        "train.output_dir": folder / "out",
        "dataloader.train.dataset.names": "generated_instances_train",
        "dataloader.test.dataset.names": "generated_instances_val",
    }
    return load_config(str(LAZY), as_lazy(options, **more))


def test_lazy_configs_are_checked_alike(config, tmp_path):
    cfg = lazy_config(tmp_path)
    with pytest.raises(UsageError, match=r"80: set model.roi_heads.num_classes to 7"):
        run(cfg, arguments())
    task = task_of_lazy(lazy_config(tmp_path, model__roi_heads__num_classes=7)).instances
    twin = task_of_yaml(config()).instances
    assert (task.num_classes, task.masks, task.mask_format) == (7, True, "polygon")
    assert (twin.num_classes, twin.masks, twin.mask_format) == (7, True, "polygon")
    for masked in (task, twin):
        assert masked.masks_key.endswith(("MASK_ON", "use_instance_mask"))


SMALL_LAZY = {
    "model.backbone.bottom_up.depth": 18,
    "model.backbone.bottom_up.freeze_at": 0,
    "model.roi_heads.num_classes": 7,
    "dataloader.test.mapper.augmentations.0.short_edge_length": 96,
    "model.roi_heads.box_predictor.test_topk_per_image": 8,
    "model.proposal_generator.post_nms_topk": "[50,20]",
    "dataloader.test.num_workers": 0,
    "dataloader.train.num_workers": 0,
    "dataloader.train.total_batch_size": 1,
    "train.max_iter": 1,
}


def test_lazy_detectors_are_tested_at_several_scales(config, tmp_path):
    scales = {"dataloader.test_augmentation.enabled": "true"}
    scales["dataloader.test_augmentation.min_sizes"] = "[64,96]"
    cfg = lazy_config(tmp_path, **SMALL_LAZY, **scales)
    weights = tmp_path / "weights.pth"
    torch.save({"model": instantiate(cfg.model).state_dict()}, weights)
    cfg.train.init_checkpoint = str(weights)
    results = run(cfg, arguments(eval_only=True))
    assert set(results) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    both_have_detections(tmp_path / "out")


def test_wrong_scales_of_a_lazy_config_are_one_line(config, tmp_path):
    key = "dataloader.test_augmentation"
    cfg = lazy_config(tmp_path, **{f"{key}.enabled": "true", f"+{key}.max_sizes": 3})
    with pytest.raises(UsageError, match=f"{key}.max_sizes does not exist; known: enabled, min_"):
        run(cfg, arguments(eval_only=True))
    options = {f"{key}.enabled": "true", "+dataloader.train.mapper.use_keypoint": "true"}
    with pytest.raises(UsageError, match=f"{key}.enabled: not with .*use_keypoint"):
        run(lazy_config(tmp_path, **options), arguments(eval_only=True))


def test_scales_are_those_of_detectron2(config, tmp_path):
    """What it reads from its config is read off the model here."""
    cfg = config(MODEL__DEVICE="cpu", TEST__DETECTIONS_PER_IMAGE=7)
    model = Trainer.build_model(cfg).eval()
    image = torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)
    inputs = [{"image": image, "height": 96, "width": 128}]
    ours = detector_at_scales(model, DetectorScales((64, 96), 4000, True))
    with torch.no_grad():
        found, expected = ours(inputs), GeneralizedRCNNWithTTA(cfg, model)(inputs)
    found, expected = (x[0]["instances"] for x in (found, expected))
    assert len(found) == len(expected) > 0
    for name, value in expected.get_fields().items():
        got = found.get(name)
        got, value = (getattr(x, "tensor", x) for x in (got, value))
        assert torch.equal(got, value), name


def two_sizes():
    shapes = [(3, 4, 4), (3, 5, 5), (3, 4, 4)]
    return [[{"image": torch.zeros(shape)} for shape in shapes]]


def test_lazy_evaluation_predicts_images_of_one_size_together():
    seen = []

    class Counting(nn.Module):
        def forward(self, inputs):
            seen.append([tuple(x["image"].shape) for x in inputs])
            return [None] * len(inputs)

    loaders = {"test": L(two_sizes)(), "evaluator": L(DatasetEvaluators)(evaluators=[])}
    assert _evaluate(OmegaConf.create({"dataloader": loaders}), Counting(), None) == {}
    assert seen == [[(3, 4, 4)] * 2, [(3, 5, 5)]]


def test_own_data_of_a_yaml_config(config, pictures, tmp_path):  # noqa: F811
    """Declared in DATASETS.COCO, and lacking an image."""
    root = pictures / "generated_instances"
    content = json.loads((root / "annotations/instances_train.json").read_text())
    content["images"].append(content["images"][0] | {"id": 999, "file_name": "gone.png"})
    (tmp_path / "own.json").write_text(json.dumps(content))
    entry = {"NAME": "own_train", "IMAGES": str(root / "train"), "JSON": str(tmp_path / "own.json")}
    cfg = config(DATASETS__COCO=[entry], DATASETS__TRAIN="('own_train',)")
    with pytest.raises(UsageError, match=r"own_train: .*own.json: 1 of 5 .*: gone.png"):
        run(cfg, arguments())


@pytest.fixture
def own_split(pictures, tmp_path):  # noqa: F811
    """Returns ``own_split(split, names)``: the generated split with other categories."""

    def register(split, names):
        root = pictures / "generated_instances"
        content = json.loads((root / f"annotations/instances_{split}.json").read_text())
        content["categories"] = [{"id": n, "name": x} for n, x in enumerate(names, start=1)]
        path = tmp_path / f"own_{split}.json"
        path.write_text(json.dumps(content))
        register_coco_dataset(f"own_{split}", images=str(root / split), json=str(path))
        return f"('own_{split}',)"

    return register


def test_classes_of_training_and_test_have_to_agree(config, own_split):
    train = own_split("train", "abcdefg")
    cfg = config(DATASETS__TRAIN=train, DATASETS__TEST=own_split("val", "abcdegf"))
    message = "own_train and own_val differ .* from number 5 on: f, g; and g, f: give both"
    with pytest.raises(UsageError, match=message):
        run(cfg, arguments())
    both = {"DATASETS.TRAIN": ["own_train"]}, {"DATASETS.TEST": ["own_val"]}
    own_split("val", "abcdefg")
    check_splits(*both, eval_only=False, task=task_of_yaml(cfg), max_files=0)


@pytest.mark.parametrize("names", ["ABCDEFG", "tuvwxyz"])
def test_other_names_for_the_same_classes_are_only_told(config, own_split, names, caplog):
    cfg = config(DATASETS__TRAIN=own_split("train", "abcdefg"))
    own_split("val", names)
    both = {"DATASETS.TRAIN": ["own_train"]}, {"DATASETS.TEST": ["own_val"]}
    check_splits(*both, eval_only=False, task=task_of_yaml(cfg), max_files=0)
    assert "own_train and own_val name their classes differently" in caplog.text


SEMANTIC = "('generated_sem_seg_train',)"
OBJECTS = "('generated_instances_train',)"


def test_a_detector_refuses_label_maps(config, tmp_path):
    message = "DATASETS.TRAIN: dataset generated_sem_seg_train has label maps, the model detects"
    with pytest.raises(UsageError, match=message):
        run(config(DATASETS__TRAIN=SEMANTIC), arguments())
    cfg = lazy_config(tmp_path, dataloader__train__dataset__names="generated_sem_seg_train")
    with pytest.raises(UsageError, match="has label maps, the model detects"):
        run(cfg, arguments())


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_a_segmentor_refuses_boxes(environment, pictures, tmp_path, monkeypatch, split):  # noqa: F811
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))
    cfg = yaml_config(tmp_path, **{f"DATASETS__{split}": OBJECTS})
    message = f"DATASETS.{split}: dataset generated_instances_train has boxes, no label maps, which"
    with pytest.raises(UsageError, match=message):
        run(cfg, arguments(eval_only=split == "TEST"))


def test_a_panoptic_model_needs_both_to_learn(config, environment, datasets, monkeypatch):  # noqa: F811
    panoptic = {"MODEL__META_ARCHITECTURE": "PanopticFPN"}
    with pytest.raises(UsageError, match="has boxes, no label maps: the model learns both"):
        run(config(**panoptic), arguments())
    cfg = config(**panoptic, MODEL__SEM_SEG_HEAD__NUM_CLASSES=8)
    task = task_of_yaml(cfg)
    check_datasets(cfg.DATASETS.TEST, task=task, max_files=0, what="X", test=True)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    name = "generated_sem_seg_train"
    with pytest.raises(UsageError, match="has label maps, no boxes: the model learns both"):
        check_datasets([name], task=task, max_files=0, what="X")


def test_keypoints_and_empty_images_follow_the_config(config, tmp_path):
    with pytest.raises(UsageError, match=r"'keypoints'.*: set MODEL.KEYPOINT_ON to false"):
        run(config(MODEL__KEYPOINT_ON=True), arguments())
    assert not task_of_yaml(config()).instances.keeps_empty
    cfg = config(DATALOADER__FILTER_EMPTY_ANNOTATIONS=False)
    assert task_of_yaml(cfg).instances.keeps_empty
    assert not task_of_lazy(lazy_config(tmp_path)).instances.keeps_empty
    more = {"dataloader.train.dataset.filter_empty": "False"}
    assert task_of_lazy(lazy_config(tmp_path, **more)).instances.keeps_empty


@pytest.fixture
def broken(config, tmp_path, monkeypatch):
    """The dataset's folder, with pictures of which half is there."""
    root = tmp_path / "generated_instances"
    generate_instances(str(root), train=2, val=2)
    for path in root.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return root


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("eval_only", [False, True])
def test_a_broken_picture_is_named(config, broken, eval_only, workers):
    cfg = config(DATALOADER__NUM_WORKERS=workers)
    with pytest.raises(UsageError) as error:
        if eval_only:
            Trainer.test(cfg, Trainer.build_model(cfg))
        else:
            run(cfg, arguments())
    assert one_line(error.value).startswith(
        f"image {broken}/{'val' if eval_only else 'train'}/0000"
    )


def test_a_broken_picture_is_named_by_lazy_configs(broken, tmp_path):
    with pytest.raises(UsageError) as error:
        run(lazy_config(tmp_path, **SMALL_LAZY), arguments())
    assert one_line(error.value).startswith(f"image {broken}/train/0000")


def test_a_name_that_is_not_registered_gets_the_closest(config):
    with pytest.raises(UsageError, match=r"'coco_2017_vall' is not registered.* coco_2017_val,"):
        check_datasets(["coco_2017_vall"], task=task_of_yaml(config()), max_files=1, what="X")


def test_cityscapes_masks_need_bitmasks(config, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
        path = tmp_path / f"cityscapes/{kind}/train/ulm/ulm_0_0_{suffix}.png"
        os.makedirs(path.parent)
        path.write_text("")

    def check(**options):
        task = task_of_yaml(config(**options))
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
        check_datasets(["cityscapes_instances_train"], task=task, max_files=1, what="X")

    classes = {"MODEL__ROI_HEADS__NUM_CLASSES": 8}
    check(INPUT__MASK_FORMAT="bitmask", **classes)
    with pytest.raises(UsageError, match=r"set INPUT.MASK_FORMAT to bitmask"):
        check(**classes)
    with pytest.raises(UsageError, match=r"8 categories.* predicts 7: set MODEL.ROI_HEADS"):
        check()
