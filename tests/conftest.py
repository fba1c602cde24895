"""Shared by all tests."""

import gc
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# The tensors here are small: a second thread costs more than it brings, all the more on a busy
# machine. The variable is for processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """What PyTorch compiles is kept for all processes of a run and goes with it.

    So is what Gradio stores.
    """
    if not hasattr(config, "workerinput"):  # not a worker of pytest-xdist
        folder = tempfile.TemporaryDirectory(prefix="dnl_d2-compiled-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder.name, "gradio")
        config.add_cleanup(folder.cleanup)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Python's collector leaves alone what stays: modules and tests, 800,000 objects.

    To look through them again and again, as tests make and drop networks, took a twentieth of the
    time; while they come into being, a fifth of that time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs CUDA where there is none; starts with the files that have slow tests.

    A slow test that starts last would keep one worker busy while the others have nothing to do.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def datasets(tmp_path_factory) -> Path:
    """A ``$DETECTRON2_DATASETS`` with a small generated dataset, in the layout of the demo."""
    from dnl_d2.synthetic import generate_dataset

    folder = tmp_path_factory.mktemp("datasets")
    generate_dataset(str(folder / "generated"), train=8, val=4, size=(72, 96), seed=3, reach=20.0)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Returns ``save(name, array_or_picture, **options) -> path`` below ``tmp_path``."""

    def write(name: str, content: np.ndarray | Image.Image, **options) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(content) if isinstance(content, np.ndarray) else content
        picture.save(path, **options)
        return str(path)

    return write


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[..., str]:
    """Returns ``write_json(content) -> path``: a new file each time; a text is written as it is."""
    numbers = itertools.count(1)

    def write(content: object) -> str:
        path = tmp_path / f"written-{next(numbers)}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


@pytest.fixture
def pair(save: Callable[..., str], rng: np.random.Generator) -> dict:
    """A record of one 30x40 picture with classes 0 to 2 and some void."""
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (30, 40), dtype=np.uint8)
    label[:2] = 255
    return {
        "file_name": save("image.png", image),
        "sem_seg_file_name": save("label.png", label),
        "height": 30,
        "width": 40,
    }
