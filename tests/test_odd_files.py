"""Pipes, loops of links, long names, full disks: a line, and nothing waits or is half-written."""

import io
import json
import os
import resource
import socket
import struct

import pytest
import torch
from PIL import Image

from dnl_d2.checkpoint import Checkpointer, read_weights
from dnl_d2.checkpoint.writing import write_weights
from dnl_d2.config.loading import load_config_file
from dnl_d2.data.datasets.coco_json import read_coco_json
from dnl_d2.data.images import load_picture, read_image
from dnl_d2.data.labels import read_label
from dnl_d2.data.listing import read_lines
from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError, write_bytes
from dnl_d2.preparation.mat import read_mat
from tests.data.coco_form import content as coco
from tests.limits import ten_seconds

READERS = {
    "weights.pth": read_weights,
    "config.yaml": load_config_file,
    "annotations.json": read_coco_json,
    "image.png": lambda path: read_image(path, "RGB"),
    "picture.png": load_picture,
    "label.png": read_label,
    "label.mat": lambda path: read_mat(path, "LabelMap"),
    "list.txt": read_lines,
}


@pytest.fixture(autouse=True)
def no_waiting():
    with ten_seconds(waiting=True):
        yield


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "loop", "long", "device"])
def test_what_is_no_file_is_not_waited_for(name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(name)
    elif kind == "folder":
        os.mkdir(name)
    elif kind == "loop":
        os.symlink(name, name)
    elif kind == "long":
        name = "a" * 300 + name
    else:
        os.symlink("/dev/zero", name)
    reader = READERS[name.removeprefix("a" * 300)]
    allowed = (UsageError, OSError) if reader is read_lines else UsageError
    with pytest.raises(allowed) as error:
        reader(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 + 2 * len(name)


def test_a_config_that_starts_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "a.yaml").write_text("_BASE_: pipe.yaml\n")
    with pytest.raises(UsageError, match="a pipe, socket or device, not a file"):
        load_config_file(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: a.yaml\n", "maximum recursion depth"),
        ("MODEL: {X: [" + "1," * 500_000 + "]}\n", "more than 262144 bytes"),
        (
            "SOLVER: {MAX_ITER: " + ":".join(["59"] * 80_000) + "}\n",
            "a number with very many colons",
        ),
        ("SOLVER: {BASE_LR: '" + "-" * 200_000 + "1'}\n", "MemoryError|RecursionError|recursion"),
        ("MODEL: " + "[" * 20_000, "maximum recursion depth"),
    ],
)
def test_a_config_that_would_be_read_for_ever(text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_config_file(str(path))
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 400


def test_what_a_linked_config_starts_from(tmp_path):
    """It lies beside the link, as Detectron2 has it."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "there" / "a.yaml").write_text("_BASE_: base.yaml\n")
    (tmp_path / "there" / "base.yaml").write_text("VERSION: 2\n")
    (tmp_path / "here" / "a.yaml").symlink_to(tmp_path / "there" / "a.yaml")
    os.mkfifo(tmp_path / "here" / "base.yaml")
    with pytest.raises(UsageError, match="a pipe, socket or device, not a file"):
        load_config_file(str(tmp_path / "here" / "a.yaml"))


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_a_small_picture_that_claims_to_be_large(kind, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    if kind == "JPEG":
        at, sides = content.index(b"\xff\xc0") + 5, struct.pack(">HH", 32000, 32000)
    else:
        at, sides = 6, struct.pack("<HH", 32000, 32000)
    content[at : at + 4] = sides
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"image .*a.png cannot be read \(32000 x 32000 pixels in"):
        read_image(str(tmp_path / "a.png"), "RGB")


@pytest.mark.parametrize("name", ["\u56fe \u00e9 'x'.png", "a" * 251 + ".png"])
def test_any_name_is_read(name, tmp_path, picture):
    path = tmp_path / name
    path.write_bytes(picture)
    assert read_image(str(path), "RGB").shape == (4, 6, 3)


@pytest.fixture
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.new("RGB", (6, 4)).save(path)
    return path.read_bytes()


@pytest.fixture
def full_disk():
    """Files end after 100 kB, as where a quota is reached."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


STATE = {"a": torch.ones(100_000)}


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("kind", ["checkpoint", "pth", "safetensors", "bytes"])
def test_a_full_disk_is_the_reason(kind, tmp_path):
    model = torch.nn.Linear(100, 1000)
    write = {
        "checkpoint": lambda: Checkpointer(model, str(tmp_path)).save("model_0000001"),
        "pth": lambda: write_weights(str(tmp_path / "w.pth"), {"model": STATE}),
        "safetensors": lambda: write_weights(str(tmp_path / "w.safetensors"), {"model": STATE}),
        "bytes": lambda: write_bytes(str(tmp_path / "w"), bytes(200_000)),
    }[kind]
    with pytest.raises(WriteError, match=r"cannot be written \(no space left"):
        write()
    assert not os.listdir(tmp_path)


def test_a_read_only_folder_is_named(tmp_path):
    if os.geteuid() == 0:  # to whom nothing is read-only
        path = "/proc/w"
    else:
        tmp_path.chmod(0o500)
        path = str(tmp_path / "w")
    with pytest.raises(WriteError, match=f"^{path}: cannot be written"):
        write_bytes(path, b"x")


def test_annotations_with_half_of_a_character(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "\ud800"}]}))
    with pytest.raises(UsageError, match="a text is no Unicode"):
        read_coco_json(str(path))


def test_annotations_whose_unread_part_is_no_utf8(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({**coco(), "info": {"by": "X"}}).encode().replace(b"X", b"\xee"))
    with pytest.raises(UsageError, match=r"cannot be read as JSON .*codec"):
        read_coco_json(str(path))
