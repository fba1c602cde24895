"""The batches of a run from any of them on: their pictures, and what is random in them."""

import random

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import IterableDataset

from dnl_d2.data.stream import TrainingStream

SIZES = [(30, 20), (20, 30), (20, 20), (40, 20), (50, 10)]
RECORDS = [
    {"number": n, "width": width, "height": height} for n, (width, height) in enumerate(SIZES * 3)
]


def mapper(record):
    """A sample of random numbers of all kinds; of some records none, now and then."""
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    if record["number"] % 5 == 1 and drawn[0] < 0.5:
        return None
    return {**record, "drawn": drawn}


def stream(seed=1, **options):
    defaults = {"mapper": mapper, "total_batch_size": 2, "aspect_ratio_grouping": False}

    def build():
        return build_detection_train_loader(RECORDS, **(defaults | options))

    return TrainingStream(build, seed=seed, batch_size=2)


def batches(stream, count, start=0):
    """So many batches, and a random number of each that is drawn where it is trained on."""
    stream.start = start
    found = zip(stream, range(count), strict=False)
    return [(batch, torch.rand(()).item(), random.random()) for batch, _ in found]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aspect_ratio_grouping": True},
        {"sampler": RepeatFactorTrainingSampler(torch.full((15,), 1.5), seed=0)},
        {"aspect_ratio_grouping": True, "collate_fn": tuple},
    ],
    ids=["plain", "grouped", "repeated", "collated"],
)
def test_batches_do_not_depend_on_where_a_run_begins_nor_on_who_loads_them(options):
    whole = batches(stream(**options), 30)
    numbers = [sample["number"] for batch, *_ in whole for sample in batch]
    assert set(numbers) >= {n for n in range(15) if n % 5 != 1}  # for which others stand in
    assert len({sample["drawn"] for batch, *_ in whole for sample in batch}) == 60
    for start, workers in ((1, 0), (7, 2), (18, 3), (0, 4), (23, 1)):
        again = batches(stream(num_workers=workers, **options), 5, start)
        assert again == whole[start : start + 5]
    used = stream(**options)
    batches(used, 3)
    assert batches(used, 5, 11) == whole[11:16]


def test_grouped_pictures_are_as_wide_or_as_high():
    found = batches(stream(aspect_ratio_grouping=True, mapper=dict), 40)
    numbers = [sample["number"] for batch, *_ in found for sample in batch]
    assert set(numbers[:20]) | set(numbers[20:30]) == set(range(15))
    wide = [[sample["width"] > sample["height"] for sample in batch] for batch, *_ in found]
    assert all(len(set(kinds)) == 1 for kinds in wide) and len({tuple(w) for w in wide}) == 2


def test_records_without_sizes_are_told_of(caplog, monkeypatch):
    def sized(record):
        return {**record, "width": 2, "height": 1}

    monkeypatch.setitem(globals(), "RECORDS", [{"number": n} for n in range(9)])
    options = {"aspect_ratio_grouping": True, "mapper": sized}
    assert len(batches(stream(**options), 2, 3)) == 2
    assert "the dataset's records need width and height" in caplog.text


def test_another_seed_draws_other_pictures_and_numbers():
    one, other = (batches(stream(seed, mapper=mapper), 8) for seed in (1, 2))
    assert [batch for batch, *_ in one] != [batch for batch, *_ in other]
    assert not {drawn for _, *drawn in map(list, one) for drawn in drawn} & {
        drawn for _, *drawn in map(list, other) for drawn in drawn
    }
    assert batches(stream(1).reseeded(2), 8) == other


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield {"number": int(torch.randint(1000, ()))}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_without_places_begins_anew_in_another_order(workers, caplog):
    def build():
        return build_detection_train_loader(
            Endless(),
            mapper=None,
            total_batch_size=2,
            num_workers=workers,
            aspect_ratio_grouping=False,
        )

    first = batches(TrainingStream(build, seed=1, batch_size=2), 5)
    assert not caplog.records
    again = batches(TrainingStream(build, seed=1, batch_size=2), 5, 2)
    assert "cannot be found again" in caplog.text
    assert [batch for batch, *_ in again[:3]] != [batch for batch, *_ in first[2:]]
    if workers == 0:
        return
    assert [drawn for _, *drawn in again[:3]] == [drawn for _, *drawn in first[2:]]
