"""The tour runs from its first cell to its last, and what is kept of it is fit to be read."""

import re

import pytest

nbformat = pytest.importorskip("nbformat")

# Folders of one machine.
PATHS = re.compile(
    r"(?<![\w:/.])/(home|root|tmp|var|usr|opt|work|mnt|Users|private)/|[A-Z]:\\\\|/site-packages/"
)


@pytest.fixture
def path(root):
    return root / "projects" / "tour" / "tour.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def check_outputs(notebook):
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data"}
    streams = [output for output in outputs(notebook) if output.output_type == "stream"]
    assert {stream.name for stream in streams} == {"stdout"}  # no warnings
    assert not PATHS.search("".join(stream.text for stream in streams))
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    return "".join(stream.text for stream in streams)


def test_what_is_kept_can_be_read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 500_000
    assert not PATHS.search(path.read_text(encoding="utf-8"))
    check_outputs(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]  # in one go


@pytest.mark.slow
def test_every_cell_runs(path, root, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(root))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    said = check_outputs(notebook)
    assert str(tmp_path) not in said
    assert float(re.search(r"mIoU ([\d.]+)", said)[1]) > 45  # 11 is background alone
    assert "logits (2, 8, 96, 81)" in said
