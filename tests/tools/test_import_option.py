"""``--import`` registers a block of one's own before the config is read."""

import sys

import pytest

from dnl_d2.layers import CONTEXT_BLOCKS
from tests.engine.runs import YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.tools.programs import load, run_file

CONFIG = "configs/camvid/fcn_r18w32-d8_4k_camvid-240x320.yaml"
BLOCK = """
import torch
from dnl_d2.layers import CONTEXT_BLOCKS, ContextBlock

@CONTEXT_BLOCKS.register("scaled")
class Scaled(ContextBlock):
    def __init__(self, in_channels: int, strength: float = 1.0):
        super().__init__(in_channels)
        self.factor = torch.nn.Parameter(torch.full((in_channels, 1, 1), strength))

    def transform(self, x, mask):
        return x * self.factor
"""
NAMED = ["MODEL.SEM_SEG_HEAD.CONTEXT.NAME", "scaled", "MODEL.SEM_SEG_HEAD.CONTEXT.STRENGTH", "0.5"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder with modules ``import_option.*``, which nobody knows afterwards."""
    folder = tmp_path / "import_option"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "blocks.py").write_text(BLOCK)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(CONTEXT_BLOCKS, "_blocks", dict(CONTEXT_BLOCKS._blocks))
    yield tmp_path
    for module in [module for module in sys.modules if module.startswith("import_option")]:
        del sys.modules[module]


@pytest.mark.usefixtures("environment")
def test_a_block_of_ones_own_trains_from_a_yaml_config(root, package, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    options = as_yaml(YAML_OPTIONS, output=tmp_path / "out", length=1)
    words = ["--import", "import_option.blocks", "--config-file", str(root / CONFIG)]
    assert run_file([str(root / "tools/train_net.py"), *words, *options, *NAMED]) == 0
    assert (tmp_path / "out/model_final.pth").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("import_option.blocks", "config key|Non-existent|unknown|no file"),
        ("import_option.nothing", "there is no module import_option.nothing"),
        ("nowhere.blocks", "there is no module nowhere"),
        ("import_option.needy", "it imports nowhere_else, which is not here"),
        ("import_option.twice", "context block name 'gc' is already registered"),
    ],
)
def test_mistakes_end_in_one_line(root, package, monkeypatch, name, message):
    (package / "import_option/needy.py").write_text("import nowhere_else")
    (package / "import_option/twice.py").write_text(BLOCK.replace('"scaled"', '"gc"'))
    monkeypatch.chdir(package)
    command = load(root, "train_net").command
    with pytest.raises(SystemExit, match=message) as ended:
        command(["--import", name, "--config-file", str(root / CONFIG), "MODEL.NOTHING", "1"])
    assert "\n" not in ended.value.code
