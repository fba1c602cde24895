"""Tools where something that they need is missing, and from any folder."""

import os
import subprocess
import sys

import pytest

TOOLS = (
    "analyze_model", "check_dataset", "compare_runs", "convert_weights", "demo", "export_model",
    "generate_dataset", "make_tables", "new_config", "page", "predict", "prepare_dataset",
    "replay_step", "train_net", "visualize_attention",
)  # fmt: skip
PARITY = ("benchmark_blocks", "benchmark_data", "benchmark_gpu", "benchmark_model", "check_parity")


def run_bare(folder, *arguments):
    """A Python without any package, started in ``folder``."""
    command = [sys.executable, "-S", "-E", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_these_are_all_tools(root):
    found = [path.stem for path in (root / "tools").glob("[!_]*.py")]
    assert sorted(found) == sorted(TOOLS + PARITY)


@pytest.mark.parametrize("folder", ["tools", "projects", "docs/scripts", ".ci"])
def test_what_is_typed_can_be_started(root, folder):
    """As the documents do: by its path alone."""
    started = [p for p in (root / folder).rglob("*.py") if p.read_bytes().startswith(b"#!")]
    assert started and not [path for path in started if not os.access(path, os.X_OK)]


@pytest.mark.parametrize(
    "path", [f"tools/{name}.py" for name in TOOLS] + [f"projects/parity/{n}.py" for n in PARITY]
)
def test_a_missing_package_is_named_in_a_line(root, tmp_path, path):
    result = run_bare(tmp_path, root / path, "--help")
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    name = path.rpartition("/")[2]
    assert line.startswith(f"{name}: error: {sys.executable} has no package ")
    assert "dnl_d2:" not in line and "`make .venv/.ready`" in line


def test_the_library_beside_the_tools_is_found(root, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(root / 'tools')!r}); import _environment, dnl_d2; "
    result = run_bare(tmp_path, "-c", code + "print(dnl_d2.__file__)")
    assert result.stdout.strip() == str(root / "dnl_d2/__init__.py"), result.stderr


@pytest.mark.parametrize(
    ("folder", "typed"), [(".", "tools/"), ("tools", "./"), ("configs/ade20k", "../../tools/")]
)
def test_commands_are_those_of_the_current_folder(root, folder, typed):
    code = f"import sys; sys.path.insert(0, {str(root / 'tools')!r}); import _environment; "
    code += "print(_environment.command_line('train_net.py', 'my config.yaml'))"
    result = run_bare(root / folder, "-c", code)
    assert result.stdout.strip() == f"{typed}train_net.py 'my config.yaml'", result.stderr


@pytest.mark.parametrize(
    ("kind", "module", "message", "hidden"),
    [
        ("FutureWarning", "torch.jit._script", "old", True),
        ("DeprecationWarning", "detectron2.model_zoo.model_zoo", "old", True),
        ("UserWarning", "detectron2.model_zoo", "pkg_resources is deprecated as an API", True),
        ("UserWarning", "torch.nn.modules.loss", "sizes differ", False),
        ("FutureWarning", "dnl_d2.data.mapper", "old", False),
        ("FutureWarning", "torch_of_mine", "old", False),
        ("DeprecationWarning", "__main__", "old", False),
    ],
)
def test_only_deprecations_of_other_packages_are_hidden(
    root, tmp_path, kind, module, message, hidden
):
    code = (
        f"import sys; sys.path.insert(0, {str(root / 'tools')!r}); import _environment, warnings; "
    )
    code += f"warnings.warn_explicit({message!r}, {kind}, 'x.py', 1, module={module!r})"
    assert (message in run_bare(tmp_path, "-c", code).stderr) != hidden
    assert message in run_bare(tmp_path, "-W", "always", "-c", code).stderr


def test_other_mistakes_keep_their_traceback(root, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(root / 'tools')!r}); import _environment; "
    for mistake in ("import dnl_d2.nothing", "1 / 0"):
        assert "Traceback" in run_bare(tmp_path, "-c", code + mistake).stderr
