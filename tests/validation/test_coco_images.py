"""The images that a file in COCO's form names, looked for before training."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from PIL import Image

from dnl_d2.data import register_coco_dataset
from dnl_d2.errors import UsageError
from tests.data.coco_form import NAME, content


@pytest.mark.parametrize(
    "dtype, mode, name", [(np.uint16, "I", "2.png"), (np.float32, "F", "2.tif")]
)
def test_images_of_more_than_8_bits_are_refused(save, check, dtype, mode, name):
    save(name, np.full((40, 60), 3000, dtype))
    data = content()
    data["images"][1]["file_name"] = name
    with pytest.raises(UsageError, match=rf"/2.* \(mode {mode}.*convert it to 8 bits"):
        check(data)


def test_a_file_in_place_of_the_folder_of_images(folder, check):
    file = folder / "file.json"
    for root, message in ((file, "is not a folder"), (folder / "no", "does not exist")):
        with pytest.raises(UsageError, match=rf"not in {root}, which {message}"):
            check(content(), root=str(root))


def test_images_that_are_missing_are_counted_and_named(folder, check):
    (folder / "2.png").unlink()
    (folder / "3.png").unlink()
    with pytest.raises(UsageError, match=rf"2 of 3 images are not in {folder}: 2.png, 3.png"):
        check(content())


def test_images_in_subfolders_are_found(folder, check):
    (folder / "more").mkdir()
    (folder / "1.png").rename(folder / "more" / "1.png")
    data = content()
    data["images"][0]["file_name"] = "more/1.png"
    check(data)
    data["images"][0]["file_name"] = "none/1.png"
    with pytest.raises(UsageError, match=r"1 of 3 images are not in .*: none/1.png"):
        check(data)


def test_names_that_start_with_the_folder_of_images(folder, check):
    data = content()
    for image in data["images"]:
        image["file_name"] = f"{folder.name}/{image['file_name']}"
    with pytest.raises(UsageError, match=rf"in the folder above, {folder.parent}: give that"):
        check(data)
    check(data, root=str(folder.parent))


@pytest.mark.parametrize("relative", [False, True])
def test_whole_paths_are_found_without_a_folder(folder, check, relative, monkeypatch):
    monkeypatch.chdir(folder)
    data = content()
    for image in data["images"]:
        image["file_name"] = image["file_name"] if relative else str(folder / image["file_name"])
    for root in ("", str(folder)) if not relative else ("",):
        assert "2 classes" in check(data, root=root)


def test_images_of_lvis_are_named_by_their_address(folder, check):
    data = content()
    for image in data["images"]:
        image["coco_url"] = f"http://images.example/{folder.name}/{image.pop('file_name')}"
    check(data, root=str(folder.parent), image_key="coco_url")
    (folder / "1.png").unlink()
    with pytest.raises(UsageError, match=f"1 of 3 images .*: {folder.name}/1.png"):
        check(data, root=str(folder.parent), image_key="coco_url")
    check(data, root=None, image_key="coco_url")


def test_an_image_of_another_size(folder, check):
    data = content()
    data["images"][1].update(height=60, width=40)
    with pytest.raises(UsageError, match=r"2.png is 60x40 \(width x height\), the file"):
        check(data)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter, as Detectron2 shows it
    Image.open(folder / "2.png").save(folder / "2.png", exif=exif)
    check(data)
    with pytest.raises(
        UsageError, match=r"2.png is 40x60 .*, turned by its EXIF entry\), the file"
    ):
        check(content())


def test_grey_images_are_read_as_colour(folder, check):
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(folder / "1.png")
    check(content())
    register_coco_dataset(NAME, images=str(folder), json=str(folder / "file.json"))
    mapped = DatasetMapper(get_cfg(), False)(DatasetCatalog.get(NAME)[0])
    assert mapped["image"].shape[0] == 3 and (mapped["image"] == 90).all()
