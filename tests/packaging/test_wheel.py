"""A wheel, built from a source distribution and installed, works far from the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import dnl_d2

pytestmark = pytest.mark.slow

SOURCES = ("dnl_d2", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")

# What PyTorch imports, or may import if it is there.
OF_TORCH = """
import importlib.metadata, sys
keep = {*sys.stdlib_module_names, "dnl_d2", "torch", "torchgen", "functorch", "triton",
        "nvidia", "cuda", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2",
        "markupsafe", "fsspec", "filelock", "setuptools"}
for name in importlib.metadata.packages_distributions():
    if name not in keep:
        sys.modules[name] = None
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """A wheel of a source distribution of a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, source / name)
    code = "import setuptools.build_meta as build; build.build_sdist('../sdist')"
    run(sys.executable, "-c", code, cwd=source)
    (sdist,) = folder.glob("sdist/*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    run(*pip, "--no-deps", "--no-build-isolation", "-w", folder, sdist, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel) -> Path:
    """Of a new environment with the wheel; everything else is that of this environment."""
    environment = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=wheel.parent)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", wheel, cwd=wheel.parent)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=wheel.parent).strip())
    # Names of a .pth file are searched, the .pth files there (an editable install) are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_wheel_holds_what_the_repository_holds(wheel, root):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (*root.glob("dnl_d2/**/*.py"), *root.glob("dnl_d2/checkpoint/*.yaml"))
    library = {p.relative_to(root).as_posix() for p in files}
    configs = {p.relative_to(root).as_posix() for p in root.glob("configs/*/**/*.*")}
    configs = {f"dnl_d2/model_zoo/{p}" for p in configs if p.endswith((".py", ".yaml"))}
    assert inside == library | configs | {"dnl_d2/py.typed"}
    assert wheel.name.startswith(f"dnl_d2-{dnl_d2.__version__}-py3-none-any")


def test_wheel_requires_torch_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    required = [
        line for line in archive.read(name).decode().splitlines() if "Requires-Dist" in line
    ]
    assert [line for line in required if "extra ==" not in line] == ["Requires-Dist: torch>=2.6"]
    assert not any("opencv" in line or "detectron2" in line for line in required)


def test_model_zoo_of_an_installed_wheel(python, tmp_path):
    names = [f"cityscapes/dnl_r50-d8_40k_cityscapes-512x1024{ending}" for ending in ("", ".py")]
    code = (
        "from dnl_d2 import model_zoo\n"
        f"for name in {names}:\n"
        "    model = model_zoo.get_model(name, device='cpu')\n"
        "    print(model_zoo.get_config_file(name), sum(p.numel() for p in model.parameters()))\n"
        "print(model_zoo.__file__, len(model_zoo.list()))\n"
    )
    *models, package = run(python, "-c", code, cwd=tmp_path).splitlines()[-3:]
    from dnl_d2 import model_zoo

    expected = model_zoo.get_model(names[0], device="meta")
    count = sum(parameter.numel() for parameter in expected.parameters())
    environment = str(python.parent.parent)
    for printed, number in zip(
        [*models, package], [count, count, len(model_zoo.list())], strict=True
    ):
        file, found = printed.rsplit(" ", 1)
        assert file.startswith(environment) and found == str(number)


def test_layers_of_an_installed_wheel_need_torch_alone(python, tmp_path):
    code = OF_TORCH + (
        "import torch\n"
        "from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block\n"
        "for name in CONTEXT_BLOCKS:\n"
        "    print(name, tuple(build_context_block(name, 8)(torch.zeros(2, 8, 9, 9)).shape))\n"
    )
    blocks = run(python, "-W", "ignore", "-c", code, cwd=tmp_path).splitlines()
    assert len(blocks) == 6 and all(line.endswith("(2, 8, 9, 9)") for line in blocks)


def test_rooms_of_an_installed_wheel_need_no_further_extra(python, tmp_path):
    others = (
        "cityscapesscripts",
        "faster_coco_eval",
        "kornia_rs",
        "lvis",
        "mmseg",
        "mmdet",
        "mmengine",
        "timm",
    )
    rooms = "analysis checkpoint data engine evaluation modeling model_zoo preparation synthetic "
    code = f"import sys\nfor name in {others}: sys.modules[name] = None\n"
    for room in (rooms + "validation visualization export").split():
        code += f"import dnl_d2.{room}\n"
    run(python, "-W", "ignore", "-c", code, cwd=tmp_path)
