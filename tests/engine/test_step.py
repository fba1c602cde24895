"""A batch in parts against the whole batch, in one process and in two."""

import copy

import pytest
import torch
import torch.nn.functional as F
from detectron2.engine import launch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from dnl_d2.engine import step as accumulation
from dnl_d2.engine.environment import data_parallel
from dnl_d2.engine.precision import AutocastInTraining, autocast_dtype
from dnl_d2.engine.step import AccumulateGradients, build_step, check_parts
from dnl_d2.errors import UsageError
from tests.processes import leave


class Segmentor(nn.Module):
    """Two losses over equally many pixels per image, no batch norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, 1)
        self.seen = []

    def forward(self, batch):
        x = self.second(self.first(torch.stack([b["image"] for b in batch])).relu())
        self.seen.append((len(batch), x.dtype))
        if not self.training:
            return x
        targets = torch.stack([b["sem_seg"] for b in batch])
        return {"a": F.cross_entropy(x.float() if x.dtype != torch.float64 else x, targets),
                "b": 0.4 * x.square().mean()}  # fmt: skip


def batches(number, size=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        [
            {
                "image": torch.randn(3, 6, 7, generator=generator, dtype=dtype),
                "sem_seg": torch.randint(5, (6, 7), generator=generator),
            }
            for _ in range(size)
        ]
        for _ in range(number)
    ]


def model(dtype=torch.float64):
    torch.manual_seed(0)
    return Segmentor().to(dtype)


def train(network, data, *, parts, dtype=None):
    """Some steps of SGD with momentum; the trainer and what it logged."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    trainer = build_step(network, data, optimizer, device="cpu", dtype=dtype, parts=parts)
    with EventStorage() as storage:
        for trainer.iter in range(len(data)):
            trainer.run_step()
            storage.step()
    return trainer, {
        name: [value for value, _ in history.values()]
        for name, history in storage.histories().items()
        if name in ("a", "b", "total_loss")
    }


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_weights_and_losses_of_the_whole_batch(parts):
    whole, split = model(), model()
    _, expected = train(whole, batches(3), parts=1)
    trainer, logged = train(split, batches(3), parts=parts)
    assert split.seen == [(4 // parts, torch.float64)] * 3 * parts
    for mine, other in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-12)
    assert set(expected) == {"a", "b", "total_loss"}
    for name, values in expected.items():
        assert logged[name] == pytest.approx(values, rel=1e-12)
    assert trainer.state_dict()["optimizer"]["state"]


def test_bfloat16_in_parts():
    network = model(torch.float32)
    train(network, batches(2, dtype=torch.float32), parts=2, dtype=torch.bfloat16)
    assert network.seen == [(2, torch.bfloat16)] * 4
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())


def test_scaled_losses_inside_autocast():
    """What AMPTrainer does on CUDA: it calls the model under autocast and scales its loss."""
    network, whole = model(torch.float32), model(torch.float32)
    (data,) = batches(1, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    split = AccumulateGradients(network, 2, scale=scaler.scale)
    for part in (whole, split):
        with torch.autocast("cpu", torch.bfloat16):
            losses = sum(part(data).values())
        scaler.scale(losses).backward()
    for mine, other in zip(network.parameters(), whole.parameters(), strict=True):
        assert other.grad.norm() > 10  # 1024 times the gradient
        assert (mine.grad - other.grad).norm() < 0.01 * other.grad.norm()  # bfloat16 has 8 bits


def test_evaluation_and_statistics_see_the_whole_batch():
    network = model()
    (data,) = batches(1)
    split = AccumulateGradients(network, 2)
    expected = copy.deepcopy(network).eval()(data)
    torch.testing.assert_close(split.eval()(data), expected)
    with torch.no_grad():  # as PreciseBN does
        assert split.train()(data)["a"].item() > 0
    assert network.seen == [(4, torch.float64)] * 2
    assert list(split.state_dict()) == [f"model.{k}" for k in network.state_dict()]


def train_in_processes(folder):
    """Two processes of two images each, in one and in two parts; gradients are exchanged once."""
    rank, data = comm.get_rank(), batches(2)
    share = [batch[2 * rank : 2 * rank + 2] for batch in data]
    for parts in (1, 2):
        network = model()
        parallel = data_parallel(network, "cpu", broadcast_buffers=False)
        exchanged = []

        def count(state, bucket, exchanged=exchanged):
            exchanged.append(bucket.index())
            future = torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
            return future.then(lambda f: f.value()[0] / comm.get_world_size())

        parallel.register_comm_hook(None, count)
        train(parallel, share, parts=parts)
        assert exchanged == [0] * len(data)
        if rank == 0:
            torch.save(network.state_dict(), f"{folder}/{parts}.pth")
    leave()


def test_two_processes_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # two processes want two GPUs where there is one
    launch(train_in_processes, 2, dist_url="auto", args=(str(tmp_path),))
    whole = model()
    train(whole, batches(2), parts=1)
    for parts in (1, 2):
        state = torch.load(tmp_path / f"{parts}.pth")
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("parts", "size"), [(3, 8), (0, 8), (16, 8), (-2, 8)])
def test_a_batch_must_split_evenly(parts, size, monkeypatch):
    with pytest.raises(UsageError, match=rf"SOLVER.ACCUMULATE={parts}: a batch of {size} images"):
        check_parts(parts, size, "SOLVER.ACCUMULATE")
    check_parts(4, 8, "SOLVER.ACCUMULATE")
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    with pytest.raises(UsageError, match=r"over 4 process"):
        check_parts(4, 8, "SOLVER.ACCUMULATE")
    with pytest.raises(UsageError, match="3 images cannot be trained in 2 equal parts"):
        AccumulateGradients(model(), 2)(batches(1, size=3)[0])


def test_precision_by_device_and_name():
    def dtype(enabled, name, device):
        return autocast_dtype(enabled, name, device, "SOLVER.AMP.DTYPE")

    assert dtype(False, "float16", "cuda") is None
    assert dtype(True, "float16", "cuda") is torch.float16
    assert dtype(True, "bfloat16", "cuda:1") is torch.bfloat16
    assert dtype(True, "float16", "cpu") is torch.bfloat16
    for enabled in (False, True):
        with pytest.raises(UsageError, match=r"SOLVER.AMP.DTYPE='fp16': use one of float16"):
            dtype(enabled, "fp16", "cuda")


def test_only_fp16_has_its_loss_scaled(monkeypatch):
    made = []

    class Scaling(accumulation.PlainTrainer):
        def __init__(self, *args):
            super().__init__(*args)
            self.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
            made.append(self)

    monkeypatch.setattr(accumulation, "ScalingTrainer", Scaling)
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step(dtype, parts=1):
        return build_step(network, [], optimizer, device="cuda", dtype=dtype, parts=parts)

    assert type(step(None)) is accumulation.PlainTrainer
    trainer = step(torch.bfloat16)
    assert type(trainer) is accumulation.PlainTrainer
    assert isinstance(trainer.model, AutocastInTraining) and trainer.model.device_type == "cuda"
    assert not made
    trainer = step(torch.float16, parts=2)
    assert made == [trainer] and trainer.zero_grad_before_forward
    assert trainer.model.model is network
    assert trainer.model.scale(torch.ones(())) == 8.0


def test_a_run_that_scaled_no_loss_goes_on_in_fp16():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def state(dtype):
        trainer = build_step(network, [], optimizer, device="cuda", dtype=dtype, parts=1)
        if dtype is torch.float16:
            trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        trainer.iter = 3
        return trainer, trainer.state_dict()

    (plain, without), (scaling, with_scale) = state(None), state(torch.float16)
    scaling.load_state_dict(without)
    assert scaling.grad_scaler.get_scale() == 8.0
    with_scale["grad_scaler"]["scale"] = 2.0
    scaling.load_state_dict(with_scale)
    assert scaling.grad_scaler.get_scale() == 2.0
    plain.load_state_dict(with_scale)
