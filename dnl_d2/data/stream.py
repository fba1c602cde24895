"""The batches of a training run, each the same whenever and wherever the run begins to read.

What is random in a sample or a batch is drawn from its number and the run's seed alone. So neither
the number of loading processes nor what was loaded before matters, and a run that goes on at some
batch needs to know nothing but which one.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

_log = logging.getLogger(__name__)
# What a random state is for.
_LOADER, _SAMPLE, _BATCH = range(3)
_NO_PLACE = (
    "where the run was in its data cannot be found again, as its loader is none that Detectron2 "
    "builds from a dataset and a sampler: it begins anew, in another order if it draws one"
)
_NO_SIZES = (
    "the data go on where the run was, but for pictures that waited for others as wide or high as "
    "they are: for these too, the dataset's records need width and height"
)


class TrainingStream:
    """Batches of a loader, from any of them on.

    Of a loader that Detectron2 builds from a dataset with a sampler nothing is loaded that is not
    trained on. Another one begins anew wherever it is read from, with other random numbers.

    Args:
        build: gives the loader; its sampler and dataset may draw random numbers.
        seed: of all that is random in samples and batches, the same in all processes.
        batch_size: images per batch, of all processes together.

    Attributes:
        dataset: the loader, whose ``dataset`` leads to its records, as in a DataLoader.
        start: number of the batch that an iteration over the stream begins with.
        random_key: of :func:`seed_all`, for the batch that was handed out last.
    """

    def __init__(self, build: Callable[[], Iterable], *, seed: int, batch_size: int):
        self.build, self.seed, self.batch_size = build, seed, batch_size
        self.start = 0
        self.random_key: tuple[int, ...] = ()
        seed_all(seed, _LOADER)
        self.dataset, self._samples, self._caveat = _prepared(build(), seed)

    def reseeded(self, seed: int) -> "TrainingStream":
        """The stream of another seed."""
        return TrainingStream(self.build, seed=seed, batch_size=self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Batches, before each of which the random state of this process is set."""
        if self.start and self._caveat:
            _log.warning(self._caveat)
        if self._samples is not None:
            self._samples.start = self.start
        elif self.start:
            seed_all(self.seed, _LOADER, self.start)
        for number, batch in enumerate(self.dataset, self.start):
            self.random_key = (self.seed, _BATCH, number, comm.get_rank())
            seed_all(*self.random_key)
            yield batch


def seed_all(*key: int) -> None:
    """Sets the random states of Python, NumPy and PyTorch, on the CPU and on CUDA, by a key."""
    python, numpy, torch_ = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    # Unlike torch.manual_seed, which takes ten times as long where there is no CUDA.
    torch.default_generator.manual_seed(torch_)
    if torch.cuda.is_initialized() and get_worker_info() is None:  # in a fork it cannot be used
        torch.cuda.manual_seed_all(torch_)


def _prepared(loader: Any, seed: int) -> "tuple[Any, _Samples | None, str]":
    """A loader of Detectron2's that begins where it is told to.

    Returns:
        The loader; what is to be told; what to say of a beginning that is not quite there.
    """
    above, groups, batches, inner = None, None, None, loader
    while inner is not None and not isinstance(inner, ToIterableDataset):
        if isinstance(inner, AspectRatioGroupedDataset):
            groups = inner
        elif isinstance(inner, DataLoader):
            batches = inner
        elif batches is None:
            above = inner
        # Detectron2 calls it the second where a function puts batches together.
        inner = getattr(inner, "dataset", getattr(inner, "_dataset", None))
    if inner is None or not inner.shard_sampler or batches is None or batches.batch_size is None:
        return loader, None, _NO_PLACE
    size = batches.batch_size if groups is None else groups.batch_size
    is_wide = _is_wide(inner.dataset) if groups is not None else None
    samples = _Samples(inner.sampler, is_wide, batch_size=size, chunk=batches.batch_size)
    inner.dataset = _SeededDataset(inner.dataset, seed)
    inner.sampler, inner.shard_sampler = samples, False
    if groups is not None and is_wide is not None:
        in_order = _Batches(groups.dataset, size)
        if above is None:
            return in_order, samples, ""
        above._dataset = in_order
    return loader, samples, _NO_SIZES if groups is not None and is_wide is None else ""


class _Batches(IterableDataset):
    """As many samples of a loader at a time, in their order.

    Args:
        dataset: gives single samples.
        batch_size: how many make a batch.
    """

    def __init__(self, dataset: Iterable, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self) -> Iterator[list]:
        samples = iter(self.dataset)
        while len(batch := list(itertools.islice(samples, self.batch_size))) == self.batch_size:
            yield batch


class _Samples(Sampler):
    """Number and index of each sample that a loading process is to load, from some batch on.

    Args:
        indices: of this process, without an end, such as a TrainingSampler.
        is_wide: whether the picture of an index is; batches are all wide or all not, as Detectron2
            makes them. None for batches in the order of the indices.
        batch_size: samples of this process.
        chunk: samples that a loading process loads before the next one's turn.

    Attributes:
        start: number of the batch to begin with.
    """

    def __init__(
        self,
        indices: Iterable[int],
        is_wide: Callable[[int], bool] | None,
        *,
        batch_size: int,
        chunk: int,
    ):
        self._indices, self._is_wide = indices, is_wide
        self._batch_size, self._chunk = batch_size, chunk
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Numbers count the samples of all processes."""
        samples = enumerate(self._indices) if self._is_wide is None else self._grouped()
        rest = itertools.islice(samples, self.start * self._batch_size, None)
        worker = get_worker_info()
        for place, (number, index) in enumerate(rest):
            if worker is None or place // self._chunk % worker.num_workers == worker.id:
                yield number * self._processes + self._rank, index

    def _grouped(self) -> Iterator[tuple[int, int]]:
        """Whichever group is complete first."""
        assert self._is_wide is not None
        groups: tuple[list[tuple[int, int]], ...] = ([], [])
        for sample in enumerate(self._indices):
            group = groups[self._is_wide(sample[1])]
            group.append(sample)
            if len(group) == self._batch_size:
                yield from group
                group.clear()


class _Width:
    """Tells whether the picture of a record is wider than it is high.

    Args:
        records: with width and height.
    """

    def __init__(self, records: Dataset):
        self._records = records
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            record = self._records[index]
            self._known[index] = record["width"] > record["height"]
        return self._known[index]


def _is_wide(dataset: Dataset) -> _Width | None:
    """Asks the records of a MapDataset, or what there is; None if they do not say."""
    records = dataset._dataset if isinstance(dataset, MapDataset) else dataset
    return _Width(records) if {"width", "height"} <= set(records[0]) else None


class _SeededDataset(Dataset):
    """The samples of a dataset, for each of which random states are set by its number.

    Args:
        dataset: maps an index to a sample.
        seed: of the run.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self._seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, sample: tuple[int, int]) -> Any:
        number, index = sample
        seed_all(self._seed, _SAMPLE, number)
        if isinstance(self.dataset, MapDataset):
            _forget_failures(self.dataset, number)
        return self.dataset[index]


def _forget_failures(dataset: MapDataset, number: int) -> None:
    """Has it draw the record that stands in for one that its mapper leaves out by this sample only.

    It goes by what has failed before in the same process otherwise.
    """
    dataset._rng.seed(number)
    if len(dataset._fallback_candidates) < len(dataset):
        dataset._fallback_candidates = set(range(len(dataset)))
