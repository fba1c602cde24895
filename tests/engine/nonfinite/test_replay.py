"""Files of steps that are replayed, and others."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from omegaconf import OmegaConf
from torch import nn

from dnl_d2.engine.nonfinite.batch import TrainedBatch
from dnl_d2.engine.nonfinite.replay import replay
from dnl_d2.engine.nonfinite.repro_file import read_repro, write_repro
from dnl_d2.engine.output_folder import clear
from dnl_d2.errors import UsageError
from tests.tools.programs import load


class Square(nn.Module):
    """float32 cannot hold the square of 1e30."""

    def __init__(self, width=1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, records):
        return {"loss": (self.weight * records[0]["image"]).square().sum()}


def config(**more):
    return OmegaConf.create({"model": {"_target_": f"{__name__}.Square", **more}})


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "nonfinite-0000003.pth")
    batch = TrainedBatch([{"image": torch.tensor([1e30]), "file_name": "a.png"}], 3)
    write_repro(path, Square(), config(), batch, "loss is inf")
    return path


def test_an_overflow_is_told_from_what_has_no_value(file):
    single = replay(file, trust_config=True)
    assert single.startswith("nonfinite-0000003.pth: iteration 3, loss is inf\n  pictures  a.png\n")
    assert "float32" in single and "(the model) Square" in single and "made from finite" in single
    double = replay(file, trust_config=True, double=True)
    assert "float64" in double and double.endswith("all is finite, the gradients too")


def test_a_lazy_config_is_called_only_where_it_is_trusted(file):
    with pytest.raises(UsageError, match="can call any function: add --trust-config"):
        replay(file)


def test_configs_that_a_file_cannot_hold(tmp_path):
    path = str(tmp_path / "x.pth")
    unwritable = OmegaConf.create({"model": {"x": object()}}, flags={"allow_objects": True})
    write_repro(path, Square(), unwritable, TrainedBatch([], 0), "loss is nan")
    with pytest.raises(UsageError, match="no model to build"):
        replay(path, trust_config=True)


def test_weights_of_another_model(tmp_path, file):
    write_repro(file, Square(), config(width=2), TrainedBatch([], 0), "loss is nan")
    with pytest.raises(UsageError, match=r"while building the model of the file: .*size mismatch"):
        replay(file, trust_config=True)


def test_batches_of_detectors(tmp_path):
    boxes, path = Boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0]])), str(tmp_path / "x.pth")
    polygons = PolygonMasks([[[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]])
    masks = BitMasks(torch.ones(1, 6, 6))
    instances = Instances((6, 6), gt_boxes=boxes, gt_masks=polygons, other=masks)
    batch = TrainedBatch([{"instances": instances}], 5, (1, 2), 3, torch.bfloat16)
    write_repro(path, Square(), config(), batch, "loss is nan")
    found = read_repro(path).batch
    assert (found.iteration, found.random_key, found.parts) == (5, (1, 2), 3)
    assert found.dtype is torch.bfloat16
    read = found.inputs[0]["instances"]
    assert torch.equal(read.gt_boxes.tensor, boxes.tensor) and read.image_size == (6, 6)
    assert read.gt_masks.polygons[0][0].tolist() == [0, 0, 4, 0, 4, 4] and read.other.tensor.all()


class Boxed:
    """What would be computed with, of which a file could hold endlessly much."""

    def __reduce__(self):
        return Boxes, ([[0.0, 0.0, 1.0, 1.0]],)


def endless():
    """A batch that takes very long to look through."""
    value = []
    for _ in range(60):
        value = [value, value]
    instances = Instances((1, 1))
    instances._fields["gt_boxes"] = value
    return [{"instances": instances}]


DAMAGED = {"format": "dnl_d2 training step, 1"}


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not the file of a training step"),
        (b"text", "not the file of a training step"),
        ({"model": {}}, "not the file of a training step: name a nonfinite"),
        ([Code()], r"refused, .* \(__builtin__.print\)"),
        ([Boxed()], r"refused, .* \(detectron2.structures.boxes.Boxes\)"),
        ({**DAMAGED, "inputs": endless()}, "holds parts of itself many times over"),
        (DAMAGED, "truncated or damaged .*KeyError: 'inputs'"),
    ],
)
def test_other_files_are_refused_in_a_line(content, message, tmp_path, capsys):
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=f"{path}: {message}") as error:
        replay(str(path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert capsys.readouterr().out == ""


def test_the_tool(root, file, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = load(root, "replay_step")

    def told(*options):
        monkeypatch.setattr("sys.argv", ["replay_step.py", file, *options])
        tool.main(tool.parse_args())
        return capsys.readouterr().out

    assert told("--trust-config") == replay(file, trust_config=True) + "\n"
    assert "float64" in told("--trust-config", "--double")
    with pytest.raises(UsageError, match="--trust-config if you know"):
        told()


def test_the_file_goes_with_the_run(file, tmp_path):
    clear(str(tmp_path))
    assert not list(tmp_path.iterdir())
