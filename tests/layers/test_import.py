"""``dnl_d2.layers`` needs torch alone; ``dnl_d2`` says how to get Detectron2."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKED = (
    "import sys\nfor name in ('detectron2', 'fvcore', 'iopath', 'cv2'): sys.modules[name] = None\n"
)


def run(code: str, *, blocked: str = BLOCKED) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", blocked + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_layers_without_detectron2():
    result = run(
        "import torch\n"
        "from dnl_d2.errors import UsageError\n"
        "from dnl_d2.layers import CONTEXT_BLOCKS, NonLocalBlock, build_context_block\n"
        "for name in CONTEXT_BLOCKS:\n"
        "    out = build_context_block(name, 8)(torch.zeros(2, 8, 9, 9))\n"
        "    print(name, tuple(out.shape))\n"
        "try: NonLocalBlock(8, norm='FrozenBN')\n"
        "except UsageError as error: print(error)\n"
    )
    assert result.returncode == 0, result.stderr
    *blocks, norm = result.stdout.splitlines()
    assert len(blocks) == 6 and all(line.endswith("(2, 8, 9, 9)") for line in blocks)
    assert norm == "norm 'FrozenBN' needs detectron2; with torch alone: BN, SyncBN, GN, fixBN"
    assert result.stderr == ""


def test_package_without_detectron2_names_both_ways_to_install_it():
    for code in (
        "import dnl_d2; dnl_d2.add_dnl_config",
        "from dnl_d2 import add_dnl_config",
        "from dnl_d2.engine import Trainer",
        "import dnl_d2.model_zoo",
        "from dnl_d2.data import read_image",
        "import dnl_d2.checkpoint.reading",
        "import dnl_d2.layers\nfrom dnl_d2 import add_dnl_config",
    ):
        result = run(code)
        assert result.returncode != 0
        message = result.stderr.strip().splitlines()[-1]
        assert message.startswith("ModuleNotFoundError: dnl_d2 needs detectron2")
        assert "pip install" in message and "make" in message


def test_layers_load_torch_alone_also_beside_detectron2():
    result = run(
        "import sys, torch, torch.utils.flop_counter  # which loads Triton where PyTorch has it\n"
        "torch_loads = {name.partition('.')[0] for name in sys.modules}\n"
        "import dnl_d2, dnl_d2.layers\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} - torch_loads\n"
        "print(sorted(name for name in loaded if not name.startswith('_')))\n",
        blocked="",
    )
    assert result.returncode == 0, result.stderr
    loaded = set(eval(result.stdout))
    assert "dnl_d2" in loaded and loaded <= {"dnl_d2"} | sys.stdlib_module_names


def test_names_of_the_package_are_listed_and_others_are_none():
    import dnl_d2

    assert {"add_dnl_config", "layers", "engine"} <= set(dir(dnl_d2))
    assert dnl_d2.layers.NonLocalBlock(8).in_channels == 8
    assert not hasattr(dnl_d2, "nonsense")


def test_only_what_can_be_imported_is_listed_without_detectron2():
    result = run("import dnl_d2; print(dir(dnl_d2)); help(dnl_d2)")
    assert result.returncode == 0, result.stderr
    names = eval(result.stdout.splitlines()[0])
    assert "layers" in names and "engine" not in names and "add_dnl_config" not in names
