import copy

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, get_cfg, instantiate
from detectron2.data import transforms as T
from PIL import Image

from dnl_d2.config.keys import add_dnl_config
from dnl_d2.data import (
    MultiScaleFlip,
    RandomResize,
    SemSegMapper,
    register_sem_seg_folder,
    sem_seg_augmentations,
    test_augmentations,
)
from dnl_d2.errors import UsageError
from tests.pictures import truncate


def make(*, is_train=True, augmentations=(), num_classes=3, **options):
    return SemSegMapper(is_train, augmentations=augmentations, num_classes=num_classes, **options)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def datasets(tmp_path):
    """Two registered names that ignore different labels."""
    names = {"test_mapper_11": 11, "test_mapper_255": 255}
    for name, ignore_label in names.items():
        register_sem_seg_folder(
            name, str(tmp_path), str(tmp_path), classes=["a", "b", "c"], ignore_label=ignore_label
        )
    return list(names)


@pytest.fixture
def cfg(datasets):
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (datasets[0],)
    return cfg


def test_training_record(pair):
    before = copy.deepcopy(pair)
    out = make()(pair)
    assert pair == before
    expected = torch.as_tensor(pixels(pair["file_name"]).copy()).permute(2, 0, 1)
    torch.testing.assert_close(out["image"], expected)
    label = torch.as_tensor(np.array(Image.open(pair["sem_seg_file_name"])).astype(np.int64))
    torch.testing.assert_close(out["sem_seg"], label)
    assert out["image"].dtype == torch.uint8 and out["sem_seg"].dtype == torch.int64
    assert (out["height"], out["width"]) == (30, 40)


def test_bgr(pair):
    out = make(image_format="BGR")(pair)
    rgb = pixels(pair["file_name"])
    np.testing.assert_array_equal(out["image"].numpy(), rgb[..., ::-1].transpose(2, 0, 1))


def test_test_record_keeps_the_original_size(pair):
    out = make(is_train=False, augmentations=test_augmentations((80, 60)))(pair)
    assert out["image"].shape == (3, 60, 80)
    assert (out["height"], out["width"]) == (30, 40)
    assert "sem_seg" not in out and out["file_name"] == pair["file_name"]


@pytest.mark.parametrize("flip", [False, True])
def test_multi_scale_record(pair, flip):
    """Every scale from the file's own pixels; the size asked for stays that of the file."""
    views = MultiScaleFlip(base_size=(80, 60), scales=(0.5, 1.0), flip=flip)
    out = make(is_train=False, augmentations=test_augmentations((8, 8)), multi_scale_flip=views)(
        pair
    )
    assert (out["height"], out["width"], out["flip"]) == (30, 40, flip)
    assert "image" not in out  # for a model that would predict at a single scale
    original = pixels(pair["file_name"])
    np.testing.assert_array_equal(out["images"][0].numpy(), original.transpose(2, 0, 1))
    expected = cv2.resize(original, (80, 60)).transpose(2, 0, 1)
    np.testing.assert_array_equal(out["images"][1].numpy(), expected)
    assert len(out["images"]) == 2


def test_multi_scale_not_enabled_or_in_training(pair):
    off = MultiScaleFlip(enabled=False)
    assert "images" not in make(is_train=False, multi_scale_flip=off)(pair)
    assert "images" not in make(multi_scale_flip=MultiScaleFlip())(pair)


def test_size_is_added_to_a_record_without_it(pair):
    del pair["height"], pair["width"]
    out = make(augmentations=[T.Resize((15, 20))])(pair)
    assert (out["height"], out["width"]) == (30, 40)
    assert out["image"].shape == (3, 15, 20) and out["sem_seg"].shape == (15, 20)


def test_dataset_ignore_label_and_255_become_the_ignore_value(pair, save):
    label = np.zeros((30, 40), np.uint8)
    label[0], label[1], label[2] = 11, 255, 2
    pair["sem_seg_file_name"] = save("other.png", label)
    out = make(dataset_ignore_label=11, ignore_value=99)(pair)
    assert out["sem_seg"][:, 0].tolist()[:4] == [99, 99, 2, 0]


@pytest.mark.parametrize("ignore_value", [-100, 65535])
def test_ignore_value_beyond_8_bits(pair, ignore_value):
    mapper = make(augmentations=[RandomResize((20, 15), (1, 1))], ignore_value=ignore_value)
    out = mapper(pair)
    assert out["sem_seg"].shape == (15, 20)
    assert out["sem_seg"].unique().tolist() == sorted([0, 1, 2, ignore_value])


def test_crop_sees_the_ignore_value(pair, save):
    """Most of the label is void: were it still 11, no crop would satisfy the constraint."""
    label = np.full((30, 40), 11, np.uint8)
    label[::5, ::2], label[::5, 1::2] = 0, 1
    pair["sem_seg_file_name"] = save("void.png", label)
    seen = []

    class Probe(T.Augmentation):
        def get_transform(self, image, sem_seg):
            seen.append(np.unique(sem_seg).tolist())
            return T.NoOpTransform()

    make(augmentations=[Probe()], dataset_ignore_label=11, ignore_value=77)(pair)
    assert seen == [[0, 1, 77]]


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("is_train", [True, False])
def test_exif_rotation_does_not_part_image_and_label(pair, save, orientation, is_train):
    rgb = pixels(pair["file_name"])
    exif = Image.Exif()
    exif[274] = orientation
    pair["file_name"] = save("turned.png", rgb, exif=exif)
    out = make(is_train=is_train)(pair)
    np.testing.assert_array_equal(out["image"].numpy(), rgb.transpose(2, 0, 1))
    assert (out["height"], out["width"]) == (30, 40)


def test_value_outside_the_classes_is_named(pair):
    with pytest.raises(UsageError, match=r"label\.png holds the value 2.*0 to 1"):
        make(num_classes=2)(pair)


def test_different_sizes_are_named(pair, save):
    pair["sem_seg_file_name"] = save("small.png", np.zeros((30, 39), np.uint8))
    with pytest.raises(UsageError, match=r"image\.png is 30x40 .* label .*small\.png is 30x39"):
        make()(pair)


def test_record_of_another_size_is_named(pair):
    with pytest.raises(UsageError, match=r"image\.png is 30x40 .*says 31x40"):
        make()({**pair, "height": 31})


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
def test_unreadable_and_missing_files_are_named(pair, key):
    truncate(pair[key])
    with pytest.raises(UsageError, match=rf"{pair[key]} cannot be read"):
        make()(pair)
    with pytest.raises(UsageError, match=r"gone\.png does not exist"):
        make()({**pair, key: "gone.png"})


def test_training_needs_a_label_and_testing_none(pair):
    del pair["sem_seg_file_name"]
    with pytest.raises(UsageError, match="has no label"):
        make()(pair)
    assert make(is_train=False)(pair)["image"].shape == (3, 30, 40)


def test_ignore_value_must_not_be_a_class():
    with pytest.raises(UsageError, match="IGNORE_VALUE"):
        make(num_classes=3, ignore_value=2)


def test_yaml_training_recipe(cfg):
    cfg.INPUT.RESIZE.BASE_SIZE = (64, 48)
    cfg.INPUT.RESIZE.RATIO_RANGE = (0.75, 1.5)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = (24, 32)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.6
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 254
    mapper = SemSegMapper(cfg, True)
    resized_crop, flip, distort = mapper.augmentations.augs
    resize, crop = resized_crop.resize, resized_crop.crop
    assert resize.base_size == (64, 48) and resize.ratio_range == (0.75, 1.5)
    assert tuple(crop.crop_aug.crop_size) == (24, 32)
    assert (crop.single_category_max_area, crop.ignored_category) == (0.6, 254)
    assert flip.prob == 0.5 and flip.horizontal
    assert distort.image_format == mapper.image_format == "RGB"
    assert (mapper.ignore_value, mapper.dataset_ignore_label, mapper.num_classes) == (254, 11, 3)


def test_yaml_defaults_and_test_recipe(cfg, datasets, pair):
    cfg.DATASETS.TEST = (datasets[1],)
    cfg.INPUT.RANDOM_FLIP = "none"
    (resize,) = SemSegMapper(cfg, True).augmentations.augs
    assert resize.base_size is None and resize.ratio_range == (0.5, 2.0)
    cfg.INPUT.RESIZE.RATIO_RANGE = (1, 1)
    assert SemSegMapper(cfg, True).augmentations.augs == []
    assert SemSegMapper(cfg, False).augmentations.augs == []
    assert SemSegMapper(cfg, False).dataset_ignore_label == 255
    cfg.INPUT.RESIZE.BASE_SIZE = (80, 60)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.COLOR_AUG_SSD = True
    out = SemSegMapper(cfg, False)(pair)
    assert out["image"].shape == (3, 60, 80) and out["height"] == 30


def test_yaml_multi_scale(cfg):
    assert not SemSegMapper(cfg, False).multi_scale_flip.enabled
    cfg.TEST.AUG.ENABLED = True
    cfg.INPUT.RESIZE.BASE_SIZE = (48, 64)
    assert SemSegMapper(cfg, True).multi_scale_flip is None
    views = SemSegMapper(cfg, False).multi_scale_flip
    assert views.enabled and views.flip and views.base_size == (64, 48)
    assert views.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    cfg.TEST.AUG.FLIP = False
    cfg.TEST.AUG.SCALES = (1.0, 2.0)
    cfg.INPUT.RESIZE.BASE_SIZE = ()
    views = SemSegMapper(cfg, False).multi_scale_flip
    assert (views.base_size, views.scales, views.flip) == (None, (1.0, 2.0), False)


def test_yaml_errors(cfg, datasets):
    cfg.INPUT.RANDOM_FLIP = "vertical"
    with pytest.raises(UsageError, match=r"INPUT\.RANDOM_FLIP is 'vertical'"):
        SemSegMapper(cfg, True)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.DATASETS.TRAIN = tuple(datasets)
    with pytest.raises(UsageError, match="differ in ignore_label"):
        SemSegMapper(cfg, True)


def test_lazy_config_gives_the_same_mapper(cfg, pair):
    cfg.INPUT.RESIZE.BASE_SIZE = (64, 48)
    lazy = LazyCall(SemSegMapper)(
        is_train=True,
        augmentations=LazyCall(sem_seg_augmentations)(
            base_size=(64, 48), ratio_range=(0.5, 2.0), crop_size=[16, 16], photometric=False
        ),
        image_format="BGR",
        dataset_ignore_label=11,
        num_classes=3,
    )
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = (16, 16)
    outputs = []
    for mapper in (instantiate(lazy), SemSegMapper(cfg, True)):
        np.random.seed(0)
        outputs.append(mapper(pair))
    torch.testing.assert_close(outputs[0]["image"], outputs[1]["image"])
    torch.testing.assert_close(outputs[0]["sem_seg"], outputs[1]["sem_seg"])
