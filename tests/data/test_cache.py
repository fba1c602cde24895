import errno
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader

from dnl_d2.config.keys import add_dnl_config
from dnl_d2.data import SemSegMapper, sem_seg_augmentations
from dnl_d2.data.cache import PictureCache
from dnl_d2.data.resize import resized
from dnl_d2.engine.from_yaml import mapper_of_yaml
from dnl_d2.errors import UsageError
from dnl_d2.model_zoo import get_config


@pytest.fixture
def records(rng, save):
    """Four pictures of 60x80 with labels of three classes."""
    found = []
    for number in range(4):
        image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        label = np.kron(rng.integers(0, 3, (6, 8)), np.ones((10, 10))).astype(np.uint8)
        paths = save(f"{number}.png", image), save(f"{number}_label.png", label)
        found.append(dict(zip(("file_name", "sem_seg_file_name"), paths, strict=True)))
    return found


def mapper(folder="", *, base=(80, 60), crop=(24, 32), **options):
    augmentations = sem_seg_augmentations(base_size=base, crop_size=crop)
    return SemSegMapper(
        True, augmentations=augmentations, num_classes=3, cache_dir=str(folder), **options
    )


def mapped(mapper, records):
    seed_all_rng(5)
    return [mapper(record) for record in records * 3]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a["height"], a["width"]) == (b["height"], b["width"])
        for key in ("image", "sem_seg"):
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_crops_are_the_same(tmp_path, records, image_format):
    """While the folder fills, and without reading a file again once it has."""
    folder = tmp_path / "cache"
    expected = mapped(mapper(image_format=image_format), records)
    assert_same(mapped(mapper(folder, image_format=image_format), records), expected)
    assert len(os.listdir(folder)) == 2 * len(records)
    for record in records:
        for path in record.values():
            state = os.stat(path)
            with open(path, "r+b") as file:  # of the same size and time, but no picture any more
                file.write(b"no picture")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert_same(mapped(mapper(folder, image_format=image_format), records), expected)


@pytest.mark.filterwarnings("error")  # PyTorch's of arrays that are read-only
def test_grey_pictures_without_augmentation(tmp_path, records):
    options = dict(augmentations=[], num_classes=3, image_format="L")
    ours = SemSegMapper(True, cache_dir=str(tmp_path / "cache"), **options)
    mapped(ours, records)
    for sample in (found := mapped(ours, records)):
        sample["image"] += 0
    assert_same(found, mapped(SemSegMapper(True, **options), records))


def test_a_changed_file_is_read_anew(tmp_path, records, save, rng):
    ours = mapper(tmp_path / "cache")
    mapped(ours, records)
    save(os.path.basename(records[0]["file_name"]), rng.integers(0, 256, (60, 80, 3), np.uint8))
    assert_same(mapped(ours, records), mapped(mapper(), records))


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


def empty(path):
    open(path, "wb").close()


def overwrite(path):
    with open(path, "r+b") as file:
        file.write(b"something else")


@pytest.mark.parametrize("damage", [cut, empty, overwrite])
def test_a_damaged_entry_is_made_anew(tmp_path, records, damage):
    folder = tmp_path / "cache"
    expected = mapped(mapper(folder), records)
    entries = {path: path.read_bytes() for path in folder.iterdir()}
    for path in entries:
        damage(path)
    assert_same(mapped(mapper(folder), records), expected)
    assert {path: path.read_bytes() for path in folder.iterdir()} == entries


def test_larger_pictures_are_kept_shrunk(tmp_path, records):
    """To the largest size that they are ever shown at, which they are of then; files say 60x80."""
    folder = tmp_path / "cache"
    ours = mapper(folder, base=(20, 20), crop=(8, 8))
    for found in mapped(ours, records):
        assert (found["height"], found["width"]) == (60, 80)
        assert found["image"].shape[1:] == (8, 8)
    whole = SemSegMapper(True, augmentations=[], num_classes=3).read_image(dict(records[0]))
    image = ours.read_image(dict(records[0]))
    np.testing.assert_array_equal(image, resized(whole, (30, 40)))
    assert ours.read_label({"height": 60, "width": 80, **records[0]}).shape == (30, 40)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * (30 * 40 * 4 + 1000)


def test_recipes_of_different_sizes_share_a_folder(tmp_path, records):
    """Neither takes what the other keeps, nor has it made anew."""
    folder = tmp_path / "cache"
    small = {"base": (20, 20), "crop": (8, 8)}
    expected = mapped(mapper(tmp_path / "alone", **small), records), mapped(mapper(), records)
    recipes = mapper(folder, **small), mapper(folder)
    for recipe, same in zip(recipes, expected, strict=True):
        assert_same(mapped(recipe, records), same)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 2 * 2 * len(records)
    for recipe, same in zip(recipes, expected, strict=True):
        assert_same(mapped(recipe, records), same)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["full", "nearly full"])
def test_a_full_disk_is_one_warning(tmp_path, records, monkeypatch, caplog, how):
    expected = mapped(mapper(), records)
    if how == "full":
        monkeypatch.setattr(os, "replace", full)
    else:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    with caplog.at_level(logging.WARNING):
        assert_same(mapped(mapper(tmp_path / "cache"), records), expected)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "dnl_d2.data.cache"]
    assert "training goes on" in line and ("no space left" in line or "GiB are free" in line)
    assert os.listdir(tmp_path / "cache") == []


def test_several_processes_share_a_folder(tmp_path, records):
    folder = tmp_path / "cache"
    ours = SemSegMapper(True, augmentations=[], num_classes=3, cache_dir=str(folder))
    plain = SemSegMapper(True, augmentations=[], num_classes=3)
    loader = DataLoader(_Mapped(records * 4, ours), batch_size=None, num_workers=2)
    assert_same(list(loader), [plain(record) for record in records * 4])
    names = os.listdir(folder)
    assert len(names) == 8 and all(name.endswith(".pixels") for name in names)


class _Mapped(torch.utils.data.Dataset):
    def __init__(self, records, mapper):
        self.records, self.mapper = records, mapper

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.mapper(self.records[index])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.png does not exist"):
        mapper(tmp_path / "cache")({"file_name": str(tmp_path / "gone.png")})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be made .*INPUT\.CACHE_DIR"):
        PictureCache(str(tmp_path / "file" / "cache"))


def test_a_detector_has_none(tmp_path):
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.INPUT.CACHE_DIR = str(tmp_path)
    mapper_of_yaml(cfg, (), train=False)
    with pytest.raises(UsageError, match=r"INPUT\.CACHE_DIR: only a segmentor's"):
        mapper_of_yaml(cfg, (), train=True)


def test_both_config_systems(tmp_path):
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.INPUT.CACHE_DIR = str(tmp_path / "yaml")
    assert SemSegMapper(cfg, True).cache.folder == str(tmp_path / "yaml")
    assert SemSegMapper(cfg, False).cache is None
    lazy = get_config("camvid/dnl_r18w32-d8_4k_camvid-240x320.py")
    lazy.dataloader.train.mapper.cache_dir = str(tmp_path / "lazy")
    cache = instantiate(lazy.dataloader.train.mapper).cache
    assert cache.folder == str(tmp_path / "lazy") and (tmp_path / "lazy").is_dir()
    assert cache.largest and max(cache.largest) > 320
