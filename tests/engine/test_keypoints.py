"""Own keypoints in both config systems: told by the file, trained mirrored, and evaluated."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from dnl_d2.data import register_coco_dataset
from dnl_d2.engine import Trainer, load_config, run
from dnl_d2.engine.from_lazy import _build_train_loader
from dnl_d2.engine.lazy_task import task_of_lazy
from dnl_d2.errors import UsageError
from tests.engine.runs import SMALL_DETECTOR, arguments, as_lazy, as_yaml, environment  # noqa: F401
from tests.engine.test_instances import LAZY, SMALL_LAZY, YAML

CORNERS = ["left_top", "right_top", "right_bottom", "left_bottom"]
pytestmark = pytest.mark.usefixtures("environment")
KEYPOINTS = {
    "MODEL.KEYPOINT_ON": True,
    "MODEL.MASK_ON": False,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 4,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": "(16,)",
    "TEST.KEYPOINT_OKS_SIGMAS": "[0.1,0.1,0.1,0.1]",
    "DATALOADER.NUM_WORKERS": 0,
}


@pytest.fixture
def entries(tmp_path, save):
    """Returns ``entries(names)``: items of DATASETS.COCO, of squares with their corners.

    ``bare`` adds an object without keypoints.
    """

    def write(names, *, bare=False):
        categories = [{"id": 1, "name": "square", "keypoints": names, "skeleton": [[1, 2]]}]
        data = {"images": [], "annotations": [], "categories": categories}
        for n in (1, 2):
            image = np.zeros((64, 64, 3), np.uint8)
            image[10 * n : 10 * n + 20, 10:50] = 200
            save(f"{n}.png", image)
            data["images"].append({"id": n, "file_name": f"{n}.png", "height": 64, "width": 64})
            left, top, right, bottom = 10, 10 * n, 50, 10 * n + 20
            corners = (left, top), (right, top), (right, bottom), (left, bottom)
            data["annotations"].append({
                "id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 800,
                "bbox": [left, top, 40, 20], "num_keypoints": 4,
                "keypoints": [x for corner in corners for x in (*corner, 2)],
            })  # fmt: skip
        if bare:
            more = {"id": 3, "image_id": 1, "category_id": 1, "bbox": [2, 40, 9, 9], "area": 81}
            data["annotations"].insert(0, more)
        (tmp_path / "own.json").write_text(json.dumps(data))
        folder = {"IMAGES": str(tmp_path), "JSON": str(tmp_path / "own.json")}
        return [{"NAME": f"own_{split}", **folder} for split in ("train", "val")]

    return write


@pytest.fixture
def config(tmp_path):
    """Returns ``config(entries, **options)``: a YAML run of two iterations."""

    def load(entries, **more):
        more |= {"DATASETS.COCO": entries, "DATASETS.TRAIN": "('own_train',)"}
        more |= {"DATASETS.TEST": "('own_val',)", "INPUT.MIN_SIZE_TRAIN": "(64,)"}
        options = SMALL_DETECTOR | KEYPOINTS
        return load_config(str(YAML), as_yaml(options, output=tmp_path / "out", **more))

    return load


def test_a_yaml_config_trains_and_evaluates(config, entries):
    results = run(config(entries(CORNERS, bare=True)), arguments())
    assert {"bbox", "keypoints"} == set(results) and results["keypoints"]["AP"] >= 0


def mirrored_at_the_same_places(loader):
    """Whether the named corners of mirrored pictures are still on their side."""
    for batch, _ in zip(loader, range(8), strict=False):
        for inputs in batch:
            (points,) = inputs["instances"].gt_keypoints.tensor
            width = inputs["image"].shape[-1]
            (left_top, right_top, right_bottom, left_bottom) = points[:, :2].tolist()
            assert left_top[0] == left_bottom[0] < width / 2 < right_top[0] == right_bottom[0]
            assert left_top[1] == right_top[1] < left_bottom[1]


def test_mirrored_pictures_swap_left_and_right(config, entries, tmp_path):
    torch.manual_seed(0)
    np.random.seed(0)
    cfg = config(entries(CORNERS))
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    mirrored_at_the_same_places(Trainer.build_train_loader(cfg))
    cfg = lazy_config(tmp_path)
    mirrored_at_the_same_places(_build_train_loader(cfg, task_of_lazy(cfg)))


def test_an_evaluation_needs_no_training_set(config, entries, tmp_path):
    cfg = config(entries(["tl", "tr", "br", "bl"])[1:])
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    assert "keypoints" in run(cfg, arguments(eval_only=True))


def test_unmirrored_pictures_need_no_names(config, entries):
    loader = Trainer.build_train_loader(config(entries([]), INPUT__RANDOM_FLIP="none"))
    assert len(next(iter(loader))[0]["instances"].gt_keypoints) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS": 17}, "4 keypoints, .*NUM_KEYPOINTS to 4"),
        ({"TEST__KEYPOINT_OKS_SIGMAS": "[]"}, "TEST.KEYPOINT_OKS_SIGMAS is empty"),
        ({"INPUT__RANDOM_FLIP": "vertical"}, "INPUT.RANDOM_FLIP: Detectron2 does not swap"),
    ],
)
def test_what_does_not_fit_is_one_line_before_training(config, entries, options, message):
    with pytest.raises(UsageError, match=message):
        run(config(entries(CORNERS), **options), arguments())


def test_pairs_that_names_do_not_tell_are_asked_for_and_taken(config, entries):
    told = entries(["tl", "tr", "br", "bl"])
    with pytest.raises(UsageError, match=r"KEYPOINT_FLIP_MAP.*not mirror pictures \(INPUT.RANDOM"):
        run(config(told), arguments())
    pairs = [["tl", "tr"], ["bl", "br"]]
    cfg = config([entry | {"KEYPOINT_FLIP_MAP": pairs} for entry in told])
    mirrored_at_the_same_places(Trainer.build_train_loader(cfg))


def lazy_config(folder, **more):
    """With the keypoint head of Detectron2's zoo, and the pairs left to the dataset."""
    options = {
        "train.device": "cpu",
        "train.init_checkpoint": "",
        "train.output_dir": folder / "out",
        "dataloader.train.dataset.names": "own_train",
        "dataloader.test.dataset.names": "own_val",
        "dataloader.train.mapper.use_instance_mask": "false",
        "dataloader.train.mapper.use_keypoint": "true",
        "dataloader.train.mapper.augmentations.0.short_edge_length": "[64]",
    }
    options |= SMALL_LAZY | {"model.roi_heads.num_classes": 1}
    cfg = load_config(str(LAZY), as_lazy(options, **more))
    heads = cfg.model.roi_heads
    for part in ("in_features", "pooler", "head"):
        del heads[f"mask_{part}"]
    keypoint = load_zoo_heads()
    heads.keypoint_in_features = ["p2", "p3", "p4", "p5"]
    heads.keypoint_pooler, heads.keypoint_head = keypoint.keypoint_pooler, keypoint.keypoint_head
    heads.keypoint_head.num_keypoints, heads.keypoint_head.conv_dims = 4, [16]
    heads.box_predictor.test_score_thresh = 0.0
    cfg.dataloader.evaluator.kpt_oks_sigmas = [0.1] * 4
    return cfg


def load_zoo_heads():
    from dnl_d2.config.loading import zoo_config

    return zoo_config("common/models/keypoint_rcnn_fpn.py").model.roi_heads


def register(entries):
    for entry in entries:
        register_coco_dataset(entry["NAME"], images=entry["IMAGES"], json=entry["JSON"])


def test_a_lazy_config_trains_and_evaluates(entries, tmp_path):
    register(entries(CORNERS))
    assert "keypoints" in run(lazy_config(tmp_path), arguments())


def test_lazy_configs_are_checked_alike(entries, tmp_path):
    register(entries(CORNERS))
    cfg = lazy_config(tmp_path)
    cfg.model.roi_heads.keypoint_head.num_keypoints = 17
    message = r"has 4 keypoints, .* predicts 17: set model.roi_heads.keypoint_head.num_keypoints to"
    with pytest.raises(UsageError, match=message):
        run(cfg, arguments())
    cfg = lazy_config(tmp_path)
    cfg.dataloader.evaluator.kpt_oks_sigmas = []
    with pytest.raises(UsageError, match=r"dataloader\.evaluator\.kpt_oks_sigmas is empty"):
        run(cfg, arguments())
    cfg = lazy_config(tmp_path)
    cfg.dataloader.train.mapper.keypoint_hflip_indices = [0, 1, 2, 3]
    with pytest.raises(UsageError, match=r"hflip_indices are \[0, 1, 2, 3\], those of own_train"):
        run(cfg, arguments())


@pytest.mark.parametrize("vertical", [False, True])
def test_how_lazy_configs_mirror_is_seen(entries, tmp_path, vertical):
    register(entries(["a", "b", "c", "d"]))
    cfg = lazy_config(tmp_path)
    resize = cfg.dataloader.train.mapper.augmentations[0]
    flip = {"horizontal": False, "vertical": True} if vertical else {}
    cfg.dataloader.train.mapper.augmentations = [resize, L(T.RandomFlip)(**flip)]
    message = "swap keypoints in vertical" if vertical else r"not mirror .*mapper\.augmentations"
    with pytest.raises(UsageError, match=message):
        run(cfg, arguments())
    cfg.dataloader.train.mapper.augmentations = [resize]
    assert task_of_lazy(cfg).instances.keypoints.flip == "none"
