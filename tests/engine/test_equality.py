"""Two and four processes compute what one does with the pictures of all."""

import itertools

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from dnl_d2.engine.environment import data_parallel, fit_sync_batch_norm
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.step import build_step
from tests.engine.runs import yaml_config
from tests.processes import call_in_group

BATCH, STEPS, SIZE = 8, 2, 32
# What is equal: the config's values, and in how many parts each process trains.
NO_NORM = {"MODEL__RESNETS__NORM": "FrozenBN", "MODEL__SEM_SEG_HEAD__NORM": ""} | {
    "MODEL__SEM_SEG_HEAD__CONTEXT__NORM": "FrozenBN"
}
ALL = {"MODEL__SEM_SEG_HEAD__LOSS_AVERAGE": "all"}
CASES = {
    "SyncBN, losses over all pixels": (ALL, 1),
    "SyncBN in parts": (ALL, 2),
    "losses over labelled pixels, of which pictures have as many": ({"even": True}, 1),
}
BY_PROCESS = "losses over labelled pixels, of which pictures have more or fewer"


def batches(even):
    """Float64 pictures with labels, of which others share more or fewer."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        batch = []
        for number in range(BATCH):
            labels = torch.randint(8, (SIZE, SIZE), generator=generator)
            labels[: 5 if even else 3 * number] = 255
            image = 255 * torch.rand(3, SIZE, SIZE, generator=generator, dtype=torch.float64)
            batch.append({"image": image, "sem_seg": labels, "height": SIZE, "width": SIZE})
        yield batch


def shares(processes):
    """Numbers of each one's pictures, as :class:`TrainingStream` deals them out: in turn."""
    return [list(range(BATCH))[rank::processes] for rank in range(processes)]


def trained(options, parts, share=range(BATCH)):
    """Losses as they are logged, and weights, statistics and the last gradients."""
    torch.manual_seed(0)
    values = {"MODEL__DEVICE": "cpu", "MODEL__SEM_SEG_HEAD__DROPOUT": 0.0} | options
    even = values.pop("even", False)
    spec = read_config(yaml_config("", OUTPUT_DIR="unused", **values), train=True)
    model = fit_sync_batch_norm(spec.build_model(), "cpu").double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    own = [[batch[number] for number in share] for batch in batches(even)]
    parallel = data_parallel(model, "cpu", broadcast_buffers=False)
    step = build_step(parallel, own, optimizer, device="cpu", dtype=None, parts=parts)
    with EventStorage() as storage:
        for step.iter in range(STEPS):
            step.run_step()
            storage.step()
    found = dict(model.state_dict())
    found |= {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.requires_grad}
    for name, history in storage.histories().items():
        if "loss" in name:
            values = [value for value, _ in history.values()]
            found[name] = torch.tensor(values, dtype=torch.float64)
    return found


def train_shares(folder):
    share = shares(comm.get_world_size())[comm.get_rank()]
    found = {name: trained(*case, share) for name, case in CASES.items()}
    found[BY_PROCESS] = trained(NO_NORM, 1, share)
    if comm.is_main_process():
        torch.save(found, folder / f"{comm.get_world_size()}.pth")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("equality")
    for processes in (2, 4):
        call_in_group(train_shares, processes, folder)
    return {processes: torch.load(folder / f"{processes}.pth") for processes in (2, 4)}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    assert {"total_loss", "loss_sem_seg"} < set(found)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_weights_and_statistics(results, case):
    whole = trained(*CASES[case])
    for processes in (2, 4):
        assert_equal(results[processes][case], whole)


@pytest.mark.parametrize("processes", [2, 4])
def test_a_loss_over_labelled_pixels_is_the_mean_of_the_processes_means(results, processes):
    """As of one process that trains on their shares one by one."""
    found, whole = results[processes][BY_PROCESS], trained(NO_NORM, 1)
    one_by_one = [*itertools.chain(*shares(processes))]
    assert_equal(found, trained(NO_NORM, processes, one_by_one))
    assert (found["total_loss"] - whole["total_loss"]).abs().min() > 1e-6
