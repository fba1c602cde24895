"""A training step asks a GPU for nothing that it would have to wait for."""

from collections import Counter

import pytest
import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset
from detectron2.engine import hooks
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from dnl_d2.engine.early_losses import PlainTrainer
from dnl_d2.engine.environment import pin_memory
from dnl_d2.engine.step import build_step
from dnl_d2.layers import CONTEXT_BLOCKS
from dnl_d2.modeling import ContextHead
from dnl_d2.modeling.losses import CrossEntropyLoss, DiceLoss, HardPixels, SumOfLosses, by_parts
from dnl_d2.modeling.segmentor import ContextSegmentor
from tests.modeling.configs import small_resnet
from tests.modeling.segmentors import image

# What needs a number, or a tensor's size, that only the GPU knows; and tensors made of Python's
# numbers, which are copied to it.
NUMBERS = {"_local_scalar_dense", "item", "is_nonzero", "equal"}
SIZES = {"nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount"}
COPIES = {"lift_fresh"}
LOSSES = {
    "plain": CrossEntropyLoss(average="all"),
    "weighted": CrossEntropyLoss(class_weights=[1.0, 2.0, 3.0, 4.0, 5.0]),
    "ohem": CrossEntropyLoss(ohem=HardPixels(min_kept=99)),
    "ohem_top": CrossEntropyLoss(ohem=HardPixels(threshold=None, min_kept=99)),
    "sum": SumOfLosses([CrossEntropyLoss(), DiceLoss()]),
    "dice": DiceLoss(per_class=False),
}


class Waits(TorchDispatchMode):
    """Counts the operations that a GPU would be waited for in."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in NUMBERS | SIZES | COPIES or any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices
        ):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def segmentor(block=None, loss=None):
    torch.manual_seed(0)
    features = ["res4", "res5"]
    inserts = {"context": block, "inserts": {"res4": [-1]}} if block else {}
    backbone = small_resnet(output_stride=8, out_features=features, **inserts)
    options = {"norm": "BN", "num_classes": 5}
    shapes = backbone.output_shape()
    auxiliary = ContextHead(shapes, in_features=["res4"], channels=8, **options)
    head = ContextHead(
        shapes,
        in_features=["res5"],
        channels=16,
        context_block=block,
        loss=loss,
        auxiliary=auxiliary,
        **options,
    )
    means = {"pixel_mean": [120.5] * 3, "pixel_std": [60.0] * 3}
    return ContextSegmentor(backbone=backbone, sem_seg_head=head, pad_size=(64, 80), **means)


def batch():
    """One picture is smaller than the crop, and some pixels have no label."""
    labels = [torch.randint(0, 5, size) for size in ((64, 80), (50, 64))]
    for label in labels:
        label[:20] = 255
    return [{"image": image(*label.shape), "sem_seg": label} for label in labels]


def trainer(model, steps, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    settings = {"device": "cpu", "dtype": None, "parts": 1} | options
    return build_step(model, [batch()] * steps, optimizer, **settings)


def waits(model, **options):
    step = trainer(model, 2, **options)
    step._write_metrics = lambda *_: None  # reads the copies, which are on the CPU by then
    with EventStorage():
        step.run_step()  # what is kept from the first step on is made
        with Waits() as counted:
            step.run_step()
    return counted.found


def test_such_operations_are_found():
    x = torch.arange(6.0)
    with Waits() as counted:
        bool(x.sum() > 1), x[x > 2], x.tolist(), torch.tensor([1.0])
    assert set(counted.found) == {"_local_scalar_dense", "index", "lift_fresh"}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("block", [None, *CONTEXT_BLOCKS])
def test_a_step_with_any_block_waits_for_nothing(block, dtype):
    assert not waits(segmentor(block if block != "afnb" else "apnb"), dtype=dtype)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_with_any_loss_but_lovasz_waits_for_nothing(loss):
    assert not waits(segmentor(loss=LOSSES[loss]), parts=2)


def test_a_loss_by_parts_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(by_parts, "PART_BYTES", 1)
    assert not waits(segmentor(loss=LOSSES["weighted"]), dtype=torch.bfloat16)


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing():
    step = trainer(segmentor("dnl").cuda(), 3, device="cuda", dtype=torch.bfloat16)
    for data in step.data_loader[0]:
        data.update({key: data[key].pin_memory() for key in ("image", "sem_seg")})
    with EventStorage() as storage:
        step.run_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step.run_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert storage.latest()["total_loss"][0] > 0


class Diverging(nn.Module):
    """Its loss is infinite in the third step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.steps = 0

    def forward(self, _):
        self.steps += 1
        return {"a": self.weight * (torch.inf if self.steps == 3 else 2.0), "b": 0 * self.weight}


def test_a_loss_that_is_not_finite_ends_its_own_step():
    model = Diverging()
    seen = []
    step = PlainTrainer(model, [[]] * 9, torch.optim.SGD(model.parameters(), lr=0.125))
    after = hooks.CallbackHook()
    after.after_backward = lambda: seen.append(step.model.weight.grad.item())
    step.register_hooks([after])
    with pytest.raises(FloatingPointError, match="iteration=2"):
        step.train(0, 9)
    assert model.weight.item() == 0.5  # 1 - 2 * 0.125 * 2: no step with what is not finite
    assert step.model is model
    assert seen == [2.0, 2.0, torch.inf]


def test_a_single_loss_is_logged_as_the_total():
    model = nn.Linear(3, 1)
    model.forward = lambda x: 3.0 * model.weight.abs().sum() * 0 + 1.5
    with EventStorage() as storage:
        PlainTrainer(model, [[]], torch.optim.SGD(model.parameters(), lr=0.1)).run_step()
    assert storage.latest()["total_loss"][0] == 1.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_gpus(device):
    loaders = [DataLoader([{"width": 1, "height": 2}], collate_fn=lambda x: x[0]) for _ in range(3)]
    plain, grouped, mapped = loaders
    pin_memory(plain, device)
    pin_memory(AspectRatioGroupedDataset(grouped, 1), device)
    pin_memory(MapDataset(AspectRatioGroupedDataset(mapped, 1), list), device)
    assert [loader.pin_memory for loader in loaders] == [device == "cuda"] * 3
    pin_memory([1, 2], device)
