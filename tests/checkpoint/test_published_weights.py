"""The table of published weights, and what their names do."""

import functools
import hashlib
import importlib.util
import io
import pathlib
import re
from argparse import Namespace

import pytest
import torch
import yaml
from detectron2.utils.file_io import PathManager

import dnl_d2
from dnl_d2 import model_zoo
from dnl_d2.checkpoint import Checkpointer, convert_back, get_source, published_weights
from dnl_d2.checkpoint.convert_file import convert_file
from dnl_d2.checkpoint.detectron2_zoo import resolve_weights
from dnl_d2.checkpoint.published_weights import (
    PublishedFile,
    PublishedWeightsHandler,
    find_published,
    of_recipe,
    published_files,
)
from dnl_d2.engine import run
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, environment, yaml_config  # noqa: F401
from tests.servers import serving

DNL = "cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"
NAME = "mmseg://dnl_r50-d8_512x1024_40k_cityscapes"
SMALL = "camvid/dnl_r18w32-d8_4k_camvid-240x320"
FOLDERS = ("ann", "dnlnet", "fcn", "gcnet", "mask_rcnn", "nonlocal_net")
FIGURES = {"mIoU": "miou", "mIoU(ms+flip)": "ms_flip"}


@functools.cache
def metafiles(package):
    """OpenMMLab's models by the stem of their config."""
    folder = pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0])
    paths = [path for name in FOLDERS for path in folder.glob(f".mim/configs/{name}/metafile.y*ml")]
    models = [model for path in paths for model in yaml.safe_load(path.read_text())["Models"]]
    return {pathlib.Path(model["Config"]).stem: model for model in models}


@pytest.fixture(scope="module")
def rows(root):
    table = yaml.safe_load((root / "configs" / "published.yaml").read_text())
    return {row["config"]: row for rows in table.values() for row in rows}


def test_addresses_are_those_of_the_metafiles():
    models = metafiles("mmseg") | metafiles("mmdet")
    files = [file for file in published_files() if file.scheme != "paddleseg"]
    assert len(files) == 102
    assert {file.also: file.address for file in files} == {
        file.also: models[file.also]["Weights"] for file in files
    }
    assert all(re.fullmatch("[0-9a-f]{8}", file.sha256) for file in files)


def test_a_file_is_that_of_the_recipe_whose_figures_it_has(rows):
    models = metafiles("mmseg")
    for file in published_files():
        if file.scheme == "mmseg":
            result = models[file.also]["Results"]
            result = result[0] if isinstance(result, list) else result
            theirs = {FIGURES[key]: value for key, value in result["Metrics"].items()}
            ours = rows[file.recipe]
            assert theirs == {key: ours[key] for key in FIGURES.values() if key in ours}, file


def test_every_row_of_a_framework_has_its_file(rows):
    with_file = {file.recipe for file in published_files() if file.of_recipe}
    assert with_file == {
        name for name, row in rows.items() if row.get("source") in ("mmsegmentation", "PaddleSeg")
    }
    assert {file.recipe for file in published_files()} <= set(rows)


def test_files_and_names_are_different_ones():
    files = published_files()
    for kind in ("address", "name", "recipe"):
        assert len({getattr(file, kind) for file in files}) == len(files)


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "mmseg://dnl_r50-d8_4xb2-40k_cityscapes-512x1024",
        "mmseg://dnl_r50-d8_512x1024_40k_cityscapes_20200904_233629-53d4ea93",
        "mmseg://dnl_r50-d8_512x1024_40k_cityscapes_20200904_233629-53d4ea93.pth",
    ],
)
def test_forms_of_a_name(name):
    file = find_published(name)
    assert file.recipe == DNL and file.sha256 == "53d4ea93"
    assert resolve_weights(name) == NAME == model_zoo.get_checkpoint_url(DNL)


WRONG = [
    ("mmseg://dnl_r50-d8_512x1024_20k_cityscapes", NAME),
    (f"mmseg://{DNL.split('/')[1]}", NAME),
    ("mmdet://dnl_r50-d8_512x1024_40k_cityscapes", NAME),
    ("mmdet://mask_rcnn_r50_fpn_r16_gcb_1x", "mmdet://mask_rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco"),
    ("mmseg://DNL_R50-D8_512x1024_40k_cityscapes", f"did you mean {NAME} or"),
    ("MMSEG://dnl_r50-d8_512x1024_40k_cityscapes", f"did you mean {NAME} or"),
    ("paddleseg://nothing like it", "configs/README.md lists them"),
    ("paddleseg://", "configs/README.md lists them"),
    ("paddleseg://model", "configs/README.md lists them"),  # the name of each of their files
]


@pytest.mark.parametrize(("name", "hint"), WRONG)
def test_a_wrong_name_ends_with_the_closest_ones(name, hint):
    with pytest.raises(
        UsageError, match=r"^MODEL.WEIGHTS: there are no published weights"
    ) as error:
        resolve_weights(name, "MODEL.WEIGHTS")
    assert hint in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_no_published_file():
    with pytest.raises(UsageError, match=r"no weights file 'nowhere/'$"):
        resolve_weights("nowhere/")


def test_a_name_without_its_scheme_is_recognised():
    with pytest.raises(UsageError, match=f"the published file is {NAME}$"):
        resolve_weights("dnl_r50-d8_512x1024_40k_cityscapes.pth")


def test_a_recipe_without_published_weights_says_so():
    with pytest.raises(UsageError, match=r"no weights of voc12aug/dnl_r50.* are published"):
        model_zoo.get_model("voc12aug/dnl_r50-d8_20k_voc12aug-512x512", trained=True)


def test_weights_of_another_recipe_are_named_not_taken():
    name = "coco/mask_rcnn_r50_fpn_gc_r16_c3-c5_fixbn_1x"
    with pytest.raises(UsageError, match="mmdet://mask_rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco has the"):
        model_zoo.get_config(name, trained=True)


@pytest.mark.parametrize("ending", [".yaml", ".py"])
def test_a_config_starts_from_published_weights(ending):
    cfg = model_zoo.get_config(DNL + ending, trained=True)
    weights = cfg.MODEL.WEIGHTS if ending == ".yaml" else cfg.train.init_checkpoint
    assert weights == NAME


def test_two_kinds_of_weights_are_refused():
    with pytest.raises(UsageError, match=r"trained=True and weights='x.pth': give one of them"):
        model_zoo.get_model(DNL, "x.pth", trained=True)


def test_a_handler_of_someone_else_stays():
    with pytest.raises(KeyError):  # ours is there
        PathManager.register_handler(PublishedWeightsHandler("mmseg"), allow_override=False)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small published file on a server of this machine: its name, its model and the server."""
    model = model_zoo.get_model(SMALL, device="cpu")
    with torch.no_grad():
        model.sem_seg_head.predictor.bias.normal_()
    state = convert_back(model.state_dict(), get_source("mmseg")).state
    torch.save({"state_dict": dict(state)}, content := io.BytesIO())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    path = f"/models/small/small_2020-{sha256[:8]}.pth"
    file = PublishedFile("mmseg", SMALL, f"https://published.invalid{path}")
    monkeypatch.setattr(published_weights, "published_files", lambda: (file,))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        server.files[f"/mirror{path}"] = content.getvalue()
        monkeypatch.setenv(published_weights.MIRROR, f"{server.url}/mirror/")
        cached = tmp_path / "cache" / path[1:]
        yield Namespace(name="mmseg://small", model=model, server=server, cached=cached)


def test_the_model_zoo_fetches_them_once(published):
    for _ in range(2):
        model = model_zoo.get_model(SMALL, trained=True, device="cpu")
        torch.testing.assert_close(model.state_dict(), published.model.state_dict())
    assert len(published.server.asked) == 1
    assert published.cached.is_file()


def test_a_mirror_may_be_a_folder(published, tmp_path, monkeypatch):
    (content,) = published.server.files.values()
    copied = tmp_path / "a copy" / published.cached.relative_to(tmp_path / "cache")
    copied.parent.mkdir(parents=True)
    copied.write_bytes(content)
    monkeypatch.setenv(published_weights.MIRROR, f"{tmp_path}/a copy/")
    assert PathManager.get_local_path(published.name) == str(published.cached)
    assert published.cached.read_bytes() == content


def test_every_way_to_give_weights_takes_the_name(published, tmp_path):
    assert PathManager.get_local_path(published.name) == str(published.cached)
    with PathManager.open(published.name, "rb") as file:
        assert file.read() == published.cached.read_bytes()
    predict = dnl_d2.Predictor(SMALL, weights=published.name, device="cpu")
    torch.testing.assert_close(predict.model.state_dict(), published.model.state_dict())
    report = convert_file(published.name, str(tmp_path / "out.pth"))
    assert report.startswith(f"{published.name}: mmsegmentation")
    assert "missing    0" in report
    assert len(published.server.asked) == 1


def test_offline_ends_in_one_line_with_address_and_target(published, monkeypatch):
    monkeypatch.setenv(published_weights.MIRROR, "http://127.0.0.1:1")
    for load in (
        lambda: model_zoo.get_model(SMALL, published.name, device="cpu"),
        lambda: convert_file(published.name, "out.pth"),
    ):
        with pytest.raises(
            UsageError, match=r"(weights|IN): http://127.0.0.1:1/models/.*"
        ) as error:
            load()
        assert str(error.value).endswith(f"put it at {published.cached}")
        assert "\n" not in str(error.value)


def test_a_recipes_name_alone_is_no_trained_model(published, root):
    message = f"MODEL.WEIGHTS of {SMALL} names those .* starts from: .* {published.name}$"
    for config in (SMALL, SMALL.split("/")[1], str(root / "configs" / f"{SMALL}.yaml")):
        with pytest.raises(UsageError, match=message):
            dnl_d2.Predictor(config, device="cpu")
    dnl_d2.Predictor(SMALL, device="cpu", overrides=["MODEL.WEIGHTS", published.name])
    assert of_recipe(SMALL).name == published.name


@pytest.mark.usefixtures("environment")
def test_an_evaluation_takes_the_name(published, tmp_path):
    cfg = yaml_config(tmp_path, MODEL__WEIGHTS=f"{published.name}x")
    with pytest.raises(UsageError, match=f"did you mean {published.name}"):
        run(cfg, arguments(eval_only=True))
    cfg = yaml_config(tmp_path, MODEL__WEIGHTS=published.name)
    with pytest.raises(UsageError, match="have another shape"):  # the tests' model is narrower
        run(cfg, arguments(eval_only=True))
    assert published.cached.is_file()


def test_a_checkpointer_passes_on_what_is_wrong_with_a_file(published):
    (path,) = published.server.files
    published.server.files[path] = b"another file"
    with pytest.raises(UsageError, match=r"MODEL.WEIGHTS: .* is not the published file"):
        Checkpointer(published.model).load_whole(published.name)
    assert not published.cached.exists()
