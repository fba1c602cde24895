"""The batches of a training run, each the same whenever and wherever the run begins to read.

What is random in a sample or a batch is drawn from its number and the run's seed alone. So neither
the number of loading processes nor what was loaded before matters, and a run that goes on at some
batch needs to know nothing but which one.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

_log = logging.getLogger(__name__)
# What a random state is for.
_LOADER, _SAMPLE, _BATCH = range(3)


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
    """

    def __init__(self, build: Callable[[], Iterable], *, seed: int, batch_size: int):
        self.build, self.seed, self.batch_size = build, seed, batch_size
        self.start = 0
        seed_all(seed, _LOADER)
        self.dataset = build()
        self._samples = _samples(self.dataset, seed)

    def reseeded(self, seed: int) -> "TrainingStream":
        """The stream of another seed."""
        return TrainingStream(self.build, seed=seed, batch_size=self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Batches, before each of which the random state of this process is set."""
        if self._samples is not None:
            self._samples.go_to(self.start)
        elif self.start:
            _log.warning(
                "where the run was in its data cannot be found again: its loader is none that "
                "Detectron2 builds from a dataset and a sampler. It begins anew, in another order "
                "if it draws one"
            )
            seed_all(self.seed, _LOADER, self.start)
        for number, batch in enumerate(self.dataset, self.start):
            seed_all(self.seed, _BATCH, number, comm.get_rank())
            yield batch


def seed_all(*key: int) -> None:
    """Sets the random states of Python, NumPy and PyTorch, on all devices, by a key."""
    torch.manual_seed(_seed_python_and_numpy(*key))


def _seed_python_and_numpy(*key: int) -> int:
    """A third seed is returned, for PyTorch."""
    seeds = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    return int(seeds[2])


def _samples(loader: Any, seed: int) -> "_Samples | None":
    """What gives out the samples of a loader of Detectron2's, which is changed to that end."""
    batches = sampled = None
    groups: AspectRatioGroupedDataset | None = None
    while loader is not None and sampled is None:
        if isinstance(loader, DataLoader):
            batches = loader
        elif isinstance(loader, AspectRatioGroupedDataset):
            groups = loader
        elif isinstance(loader, ToIterableDataset) and loader.shard_sampler:
            sampled = loader
        # Detectron2 calls it the second where it puts batches together by a function.
        loader = getattr(loader, "dataset", getattr(loader, "_dataset", None))
    if batches is None or batches.batch_size is None or sampled is None:
        return None
    samples = _Samples(sampled.sampler, sampled.dataset, chunk=batches.batch_size, groups=groups)
    sampled.sampler, sampled.shard_sampler = samples, False
    sampled.dataset = _SeededDataset(sampled.dataset, seed)
    return samples


class _Samples(Sampler):
    """Number and index of each sample that a loading process is to load, from some batch on.

    Args:
        indices: of this process, without an end, such as a TrainingSampler.
        records: what they are indices of.
        chunk: samples that a loading process loads before the next one's turn.
        groups: makes batches of pictures that are all wide or all high, of samples one by one;
            None for batches of samples in their order.
    """

    def __init__(
        self,
        indices: Iterable[int],
        records: Dataset,
        *,
        chunk: int,
        groups: AspectRatioGroupedDataset | None,
    ):
        self._indices, self._chunk = indices, chunk
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self._waiting: list[tuple[int, int]] = []
        self._next = 0
        self._find = _GroupedBatches(indices, records, groups) if groups is not None else None

    def go_to(self, batch: int) -> None:
        """Has the samples begin with those of a batch, by its number."""
        if self._find is None:
            self._next = batch * self._chunk
        else:
            self._waiting, self._next = self._find(batch)

    def __getstate__(self) -> dict[str, Any]:
        """Loading processes need not know how batches are found."""
        return vars(self) | {"_find": None}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rest = itertools.islice(enumerate(self._indices), self._next, None)
        samples = itertools.chain(self._waiting, rest)
        worker = get_worker_info()
        for place, (number, index) in enumerate(samples):
            if worker is None or place // self._chunk % worker.num_workers == worker.id:
                yield number * self._processes + self._rank, index


class _GroupedBatches:
    """Where a batch begins if pictures wait until there are enough as wide or as high as they are.

    Args:
        indices, records, groups: see :class:`_Samples`.
    """

    def __init__(self, indices: Iterable[int], records: Dataset, groups: AspectRatioGroupedDataset):
        self._indices, self._groups = indices, groups
        self._records = records._dataset if isinstance(records, MapDataset) else records
        self._is_wide: dict[int, bool] = {}

    def __call__(self, batch: int) -> tuple[list[tuple[int, int]], int]:
        """Numbers and indices of the samples that wait then, and the number of the next one."""
        for bucket in self._groups._buckets:
            bucket.clear()  # of an earlier iteration
        waiting: tuple[list[tuple[int, int]], ...] = ([], [])
        left, drawn = batch, 0
        for number, index in enumerate(self._indices):
            if not left:
                break
            try:
                group = waiting[self._wide(index)]
            except (KeyError, TypeError):  # a record without size, which its mapper adds
                _log.warning(
                    "pictures that waited for others as wide or high as they are when the run "
                    "ended are not trained on: the dataset's records have no width and height"
                )
                return [], batch * self._groups.batch_size
            group.append((number, index))
            drawn = number + 1
            if len(group) == self._groups.batch_size:
                group.clear()
                left -= 1
        return sorted(itertools.chain(*waiting)), drawn

    def _wide(self, index: int) -> bool:
        if index not in self._is_wide:
            record: Mapping[str, Any] = self._records[index]
            self._is_wide[index] = record["width"] > record["height"]
        return self._is_wide[index]


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
        # Loading runs on the CPU: other devices are left alone, which may not even be usable here.
        torch.default_generator.manual_seed(_seed_python_and_numpy(self._seed, _SAMPLE, number))
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
