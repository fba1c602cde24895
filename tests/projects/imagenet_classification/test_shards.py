"""Tar shards: what comes out of them, and broken ones."""

import io
import tarfile

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from PIL import Image
from torch.utils.data import DataLoader

from dnl_d2.errors import UsageError
from dnl_d2_imagenet import ClassificationMapper, tar_shards

pytest.importorskip("webdataset")
NAME = "shards_test"


@pytest.fixture(autouse=True)
def forget(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.fixture
def write(tmp_path):
    """Returns ``write(name, members)``, which writes a tar of bytes by name."""

    def shard(name, members):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return shard


def picture():
    content = io.BytesIO()
    Image.new("RGB", (6, 6)).save(content, "png")
    return content.getvalue()


def samples(first, count):
    numbers = range(first, first + count)
    return {
        key: value
        for n in numbers
        for key, value in ((f"{n:03d}.png", picture()), (f"{n:03d}.cls", str(n % 5).encode()))
    }


@pytest.fixture
def three(write):
    for number in range(3):
        write(f"s-{number}.tar", samples(4 * number, 4))
    return "s-{0..2}.tar"


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_sample_once(three, workers):
    shards = tar_shards(NAME, three, num_classes=5, training=False)
    assert len(shards) == 12
    loader = DataLoader(shards, batch_size=None, num_workers=workers)
    seen = [(r["file_name"].split(": ")[1], r["category_id"]) for r in loader]
    assert sorted(seen) == [(f"{n:03d}.png", n % 5) for n in range(12)]
    assert MetadataCatalog.get(NAME).classes == ["0", "1", "2", "3", "4"]


def test_training_has_no_end_and_its_workers_draw_differently(three):
    shards = tar_shards(NAME, "s-*.tar", num_classes=5, training=True)
    loader = iter(DataLoader(shards, batch_size=None, num_workers=2))
    drawn = [next(loader)["file_name"] for _ in range(600)]
    assert len(set(drawn)) == 12 and drawn[0::2] != drawn[1::2]


def test_samples_that_lack_something_are_told_by_name(write):
    more = {"x.png": picture(), "y.cls": b"1", "z.png": picture(), "z.cls": b"cat"}
    write("s.tar", samples(0, 2) | more)
    shards = tar_shards(NAME, "s.tar", num_classes=5, training=False)
    records = {r["file_name"].split(": ")[1]: r for r in shards}
    broken = {name: r["broken"] for name, r in records.items() if "broken" in r}
    assert broken == {
        "x": "it has no cls",
        "y": "it has no picture",
        "z": "its class is b'cat', no number",
    }
    assert records["y"]["category_id"] == 1


def test_evaluation_counts_what_has_a_class_and_names_the_rest(write, caplog):
    more = {"x.png": picture(), "y.cls": b"1", "z.png": picture(), "z.cls": b"cat"}
    write("s.tar", samples(0, 2) | more)
    shards = tar_shards(NAME, "s.tar", num_classes=5, training=False)
    mapper = ClassificationMapper(False, size=4, resize=4)
    loader = build_detection_test_loader(shards, mapper=mapper, batch_size=2)
    seen = [record for batch in loader for record in batch]
    assert [(r["category_id"], "image" in r) for r in seen] == [(0, True), (1, True), (1, False)]
    for name in ("x cannot be used (it has no cls)", "z cannot be used (its class is b'cat', no"):
        assert name in caplog.text
    assert caplog.text.count("it is left out, having no class") == 2


def test_a_shard_that_is_cut_off_ends_the_reading_in_a_line(write, tmp_path):
    write("s.tar", samples(0, 8))
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:520])  # within the first picture
    shards = tar_shards(NAME, "s.tar", num_classes=5, training=False, length=8)
    with pytest.raises(UsageError, match=r"cannot be read: unexpected end of data @ <[^>]*>$"):
        list(shards)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "s.tar is empty"),
        ({"a.png": b"1"}, "no sample of shard .*s.tar has a .cls"),
        ({"a.cls": b"1"}, r"no sample of shard .*s.tar has a picture \(jpg"),
    ],
)
def test_useless_shards_are_refused(write, content, message):
    write("s.tar", content)
    with pytest.raises(UsageError, match=message):
        tar_shards(NAME, "s.tar", num_classes=5, training=True)


def test_what_is_no_shard(tmp_path, write):
    (tmp_path / "s.tar").write_text("no tar")
    with pytest.raises(UsageError, match="no whole tar file"):
        tar_shards(NAME, "s.tar", num_classes=5, training=True)
    with pytest.raises(UsageError, match="no file matches"):
        tar_shards(NAME, "t*.tar", num_classes=5, training=True)
    with pytest.raises(UsageError, match=r"t-1\.tar does not exist"):
        tar_shards(NAME, "t-{1..3}.tar", num_classes=5, training=True)
