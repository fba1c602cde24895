"""tools/new_config.py as a person runs it."""

import json
import os

import pytest
from detectron2.data import DatasetCatalog

from dnl_d2.engine import load_config, run
from tests.engine.runs import arguments, as_yaml, environment, forget, pictures  # noqa: F401
from tests.modeling.detectors import SMALL
from tests.tools.programs import load, start

TINY = {k: v for k, v in SMALL.items() if not k.startswith("DATASETS")} | {
    "MODEL.ROI_HEADS.NUM_CLASSES": 7,
    "MODEL.RETINANET.NUM_CLASSES": 7,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": (),
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.EVAL_PERIOD": 2,
}


@pytest.fixture
def new(root, environment, pictures, tmp_path, capsys):  # noqa: F811
    """Returns ``new(*arguments)``, which writes ``my config.yaml`` from the generated instances."""
    command = load(root, "new_config").command
    data = pictures / "generated_instances"

    def make(*more, **changes):
        options = {
            "json": data / "annotations/instances_train.json",
            "images": data / "train",
            **changes,
        }
        given = [x for key, value in options.items() for x in (f"--{key}", value)]
        command([*map(str, [tmp_path / "my config.yaml", *given, *more])])
        return capsys.readouterr().out

    return make


def validation(pictures):  # noqa: F811
    data = pictures / "generated_instances"
    return ["--val-json", data / "annotations/instances_val.json", "--val-images", data / "val"]


@pytest.mark.parametrize("model", ["mask_rcnn_R_50_FPN_3x", "retinanet_R_50_FPN_3x"])
def test_its_config_trains_and_evaluates(new, pictures, tmp_path, model):  # noqa: F811
    out = new("--model", model, *validation(pictures))
    path = tmp_path / "my config.yaml"
    assert f"to train: tools/train_net.py --config-file '{path}'" in out
    assert "7 classes, 1000 iterations, 1000 times 4 pictures in batches of 4" in out
    cfg = load_config(str(path), as_yaml(TINY, output=tmp_path / "out"))
    results = run(cfg, arguments())
    assert "bbox" in results and (tmp_path / "out/model_final.pth").is_file()


def test_a_share_is_set_aside_in_files_beside_the_config(new, pictures, tmp_path):  # noqa: F811
    out = new("--val-share", "0.25")
    assert "set aside for validation: 1 of 4 images" in out and "frames of one video" in out
    parts = [json.loads((tmp_path / f"mine_{s}.json").read_text()) for s in ("train", "val")]
    ids = [{image["id"] for image in part["images"]} for part in parts]
    assert [*map(len, ids)] == [3, 1] and not ids[0] & ids[1]
    for part, own in zip(parts, ids, strict=True):
        assert part["annotations"] and {a["image_id"] for a in part["annotations"]} <= own
        assert len(part["categories"]) == 7
    source = pictures / "generated_instances/annotations/instances_train.json"
    whole = json.loads(source.read_text())["annotations"]
    assert sum(len(part["annotations"]) for part in parts) == len(whole)
    load_config(str(tmp_path / "my config.yaml"))
    assert len(DatasetCatalog.get("mine_train")) == 3 and len(DatasetCatalog.get("mine_val")) == 1


def test_ids_that_are_texts_are_split_as_well(new, pictures, tmp_path):  # noqa: F811
    def change(content):
        for image in content["images"]:
            image["id"] = f"image {image['id']}"
        for entry in content["annotations"]:
            entry["image_id"] = f"image {entry['image_id']}"

    new("--val-share", "0.5", json=spoilt(change, pictures, tmp_path))
    load_config(str(tmp_path / "my config.yaml"))
    parts = [DatasetCatalog.get(f"mine_{split}") for split in ("train", "val")]
    assert [*map(len, parts)] == [2, 2] and all(r["annotations"] for part in parts for r in part)


def test_the_command_is_that_of_the_current_folder(new, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = os.path.relpath(root / "tools/train_net.py", tmp_path)
    assert f"to train: {path} --config-file " in new()


def test_without_masks_and_validation_it_says_so(new, pictures, tmp_path):  # noqa: F811
    source = pictures / "generated_instances/annotations/instances_train.json"
    content = json.loads(source.read_text())
    for entry in content["annotations"]:
        entry.pop("segmentation")
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    out = new(json=tmp_path / "boxes.json")
    assert "MODEL.MASK_ON is false" in out and "never evaluated" in out
    assert load_config(str(tmp_path / "my config.yaml")).MODEL.MASK_ON is False


def test_a_block_that_acts_from_the_start_is_named(new):
    assert "apnb changes the outputs of the trained model from the start" in new("--block", "apnb")


def test_nothing_is_written_over(new, tmp_path, capsys):
    (tmp_path / "my config.yaml").write_text("mine")
    with pytest.raises(SystemExit, match=r"my config\.yaml: exists, give another name"):
        new()
    assert (tmp_path / "my config.yaml").read_text() == "mine"
    (tmp_path / "my config.yaml").unlink()
    (tmp_path / "mine_val.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"mine_val\.json: exists"):
        new("--val-share", "0.5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_val.json"]


def spoilt(change, pictures, folder):  # noqa: F811
    source = pictures / "generated_instances/annotations/instances_train.json"
    content = json.loads(source.read_text())
    change(content)
    (folder / "spoilt.json").write_text(json.dumps(content))
    return folder / "spoilt.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=99), "category"),
        (lambda c: c["images"][0].update(file_name="gone.png"), "gone.png"),
        (lambda c: c.update(categories=[]), "'categories' is empty"),
        (lambda c: c.update(annotations=[]), "no annotation can be used"),
    ],
)
def test_the_files_are_checked_first(new, pictures, tmp_path, change, message):  # noqa: F811
    path = spoilt(change, pictures, tmp_path)
    with pytest.raises(SystemExit) as ended:
        new("--val-share", "0.5", json=path)
    assert str(ended.value).startswith("new_config.py: error: ") and message in str(ended.value)
    assert "\n" not in str(ended.value)
    assert [p.name for p in tmp_path.iterdir()] == ["spoilt.json"]


def only_crowds_but_one(content):
    for entry in content["annotations"][1:]:
        entry["iscrowd"] = 1


def test_a_share_without_an_object_is_refused(new, pictures, tmp_path):  # noqa: F811
    path = spoilt(only_crowds_but_one, pictures, tmp_path)
    with pytest.raises(SystemExit, match="of 4 pictures none can be set aside"):
        new("--val-share", "0.5", json=path)
    assert [p.name for p in tmp_path.iterdir()] == ["spoilt.json"]


def test_nothing_is_left_where_a_part_is_refused(new, pictures, tmp_path):  # noqa: F811
    """Boxes of a pixel pass beside larger ones; alone they are taken for parts of the image."""
    new("--val-share", "0.25", "--name", "first")
    (aside,) = json.loads((tmp_path / "first_val.json").read_text())["images"]

    def shrink(content):
        for entry in content["annotations"]:
            if entry["image_id"] == aside["id"]:
                entry.update(bbox=[0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1]])

    for path in tmp_path.iterdir():
        path.unlink()
    path = spoilt(shrink, pictures, tmp_path)
    with pytest.raises(SystemExit, match=r"mine_val\.json: 'bbox' is in pixels"):
        new("--val-share", "0.25", json=path)
    assert [p.name for p in tmp_path.iterdir()] == ["spoilt.json"]


@pytest.mark.parametrize("option", ["json", "val-json"])
def test_where_some_masks_are_missing_it_names_a_model(new, pictures, tmp_path, option):  # noqa: F811
    path = spoilt(lambda c: c["annotations"][1].pop("segmentation"), pictures, tmp_path)
    images = pictures / "generated_instances/train"
    more = {} if option == "json" else {"val-images": images}
    model = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    with pytest.raises(SystemExit, match=f"learns: take a model without masks.*--model {model}"):
        new(**{option: path, **more})
    new("--model", model, **{option: path, **more})
    load_config(str(tmp_path / "my config.yaml"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--block", "cg"], "--block cg: there is "),
        (["--name", "generated_instances"], "there is a dataset 'generated_instances_train'"),
        (["--model", "nope"], "no trained 'nope'"),
    ],
)
def test_wrong_names_end_in_one_line(new, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        new(*more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--val-json", "x"], "go together"),
        (["--val-share", "1"], "between 0 and 1"),
        (["--val-share", "0.2", "--val-json", "x", "--val-images", "y"], "leave out --val-json"),
        (["--batch-size", "0"], "at least 1"),
    ],
)
def test_options_that_do_not_go_together(new, more, message, capsys):
    with pytest.raises(SystemExit):
        new(*more)
    assert message in capsys.readouterr().err


def test_it_starts_as_a_program(root):
    result = start(root, "new_config", "mine.txt", "--json", "x", "--images", "y")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "mine.txt: the config is a YAML file" in result.stderr.strip().splitlines()[-1]
