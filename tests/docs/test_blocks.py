"""Every block of code in every document runs, or is named here as one that cannot.

The languages are ``python`` (one namespace for a page), ``bash`` (see :mod:`tests.docs.commands`
for what is run in a reduced form, and how), ``yaml`` (loaded as a config) and ``text`` (not run).
Blocks of a page run in its order, in a folder of its own with the content that ``workspace.py``
writes. A block that begins with ``# NAME.py`` or ``# NAME.yaml`` is saved there first, for later
commands; of such a module the page's blocks have all names.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest

from dnl_d2.layers import CONTEXT_BLOCKS
from tests.docs import commands, workspace
from tests.docs.pages import ROOT, blocks, documents
from tests.engine.runs import environment  # noqa: F401

PAGES = [name for name in documents() if blocks((ROOT / name).read_text(encoding="utf-8"))]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    workspace.prepare(folder)
    return folder


@pytest.fixture
def workplace(prepared, environment, tmp_path, monkeypatch) -> Path:  # noqa: F811
    folder = tmp_path / "dnl_d2"
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder / "datasets"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(CONTEXT_BLOCKS, "_blocks", dict(CONTEXT_BLOCKS._blocks))
    modules = set(sys.modules)
    yield folder
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) == str(folder / f"{name}.py"):
            del sys.modules[name]


@pytest.mark.parametrize("name", PAGES)
def test_blocks_run(name, workplace):
    namespace = {"__name__": "__main__"}
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        run(block, name, workplace, namespace)


def run(block, name, workplace, namespace):
    """One block of the page ``name``."""
    where = f"{name}:{block.line}"
    assert block.language in ("python", "bash", "yaml", "text"), f"{where}: {block.language!r}"
    saved = re.match(r"# (\w+)\.(py|yaml)\n", block.text)
    if saved:
        (workplace / saved[0][2:-1]).write_text(block.text, encoding="utf-8")
    if block.language == "python" and saved:
        namespace.update(vars(importlib.import_module(saved[1])))
    elif block.language == "python":  # with the line numbers of the page
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / name), "exec")
        exec(code, namespace)
    elif block.language == "yaml":
        commands.load_yaml(block.text, workplace / "block.yaml")
    elif block.language == "bash":
        try:
            commands.run_block(block.text)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error


def test_blocks_are_found():
    page = (
        "a\n```bash\nx\n```\n\n- b\n\n  ```python\n  if x:\n      y\n  ```\n````text\n```\n````\n"
    )
    found = blocks(page)
    assert [tuple(block) for block in found] == [
        ("bash", "x\n", 3), ("python", "if x:\n    y\n", 9), ("text", "```\n", 13)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["make nothing", "pip install .[nothing]", "rm -rf x", "tools/predict.py", "cd x",
             "tools/train_net.py --config-file configs/coco/none.yaml", "export HOME=/x"]
)  # fmt: skip
def test_what_is_wrong_fails(line, workplace):
    with pytest.raises(AssertionError):
        commands.run_block(line)


def test_documents_are_those_of_the_repository():
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "tools/README.md"} <= set(
        documents()
    )
    assert {"README.md", "docs/getting_started.md", "docs/export.md"} <= set(PAGES)


def test_commands_stand_in_fenced_blocks():
    for name in documents():
        indented = re.findall(
            r"^(?: {4}|\t) *(?:\S+/\w+\.py |make |pip |python ).*", (ROOT / name).read_text(), re.M
        )
        fenced = "\n".join(block.text for block in blocks((ROOT / name).read_text()))
        assert not [line for line in indented if line.strip() not in fenced], name
