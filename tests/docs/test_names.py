"""Names in the documents: config keys, recipes, files, and those of other code bases."""

import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from dnl_d2 import add_dnl_config, model_zoo
from tests.docs.pages import ROOT, documents

_KEY = re.compile(
    r"\b(?:MODEL|INPUT|SOLVER|TEST|DATASETS|DATALOADER)(?:\.[A-Z][A-Z0-9_]+)+(?![\w.]*\*)"
)
_FILE = re.compile(r"`((?:configs|tools|docs|dnl_d2|tests|projects|requirements)/[\w./-]+\w)`")
_RECIPE = re.compile(r"`((?:cityscapes|ade20k|voc12aug|pascal-context|coco|camvid)/[\w-]+)`")
THEIRS = {"tools/analysis_tools/get_flops.py"}  # of mmsegmentation
_WRITTEN = {"CHANGELOG.md"}  # which names what was


def texts():
    return {name: (ROOT / name).read_text("utf-8") for name in documents() if name not in _WRITTEN}


def has_key(cfg: CfgNode, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(cfg, CfgNode) or part not in cfg:
            return False
        cfg = cfg[part]
    return True


def test_config_keys_exist():
    cfg = get_cfg()
    add_dnl_config(cfg)
    found = {(name, key) for name, text in texts().items() for key in _KEY.findall(text)}
    assert len(found) > 100
    assert not sorted(pair for pair in found if not has_key(cfg, pair[1]))


def test_files_and_recipes_exist():
    found = [(name, file) for name, text in texts().items() for file in _FILE.findall(text)]
    assert len(found) > 30
    missing = {file for _, file in found if not (ROOT / file).exists()}
    assert missing <= THEIRS
    recipes = set(model_zoo.list())
    named = [(name, recipe) for name, text in texts().items() for recipe in _RECIPE.findall(text)]
    assert len(named) > 100
    assert not [pair for pair in named if pair[1].removesuffix(".yaml") not in recipes]


@pytest.mark.parametrize(
    ("package", "heading"), [("mmseg", "mmsegmentation"), ("mmdet", "GCNet and MMDetection")]
)
def test_public_configs_and_keys_exist(package, heading):
    """The left columns of coming_from.md, against the installed package."""
    folder = Path(pytest.importorskip(package).__file__).parent
    text = (ROOT / "docs/coming_from.md").read_text("utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| ")]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    files = {file.stem for file in (folder / ".mim/configs").rglob("*.py")}
    listed = [name for name in names if re.fullmatch(r"\w+-d8_[\w-]+|[\w-]+_coco", name)]
    assert len(listed) >= 2 and set(listed) <= files, set(listed) - files
    parts = (".mim/configs/_base_", ".mim/configs/gcnet", ".mim/tools", "models", "datasets")
    folders = [*(folder / part for part in parts), folder.parent / "mmengine/optim"]
    source = "\n".join(f.read_text("utf-8") for place in folders for f in place.rglob("*.py"))
    assert package != "mmseg" or all((folder / ".mim" / file).is_file() for file in THEIRS)
    keys = [name for name in names if re.fullmatch(r"[a-z][a-z_]+", name)]
    assert len(keys) >= 1
    assert not [key for key in keys if not re.search(rf"\b{key}\b", source)]
