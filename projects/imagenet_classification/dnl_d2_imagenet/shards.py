"""Datasets of tar files whose members are pictures and their classes (webdataset)."""

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.utils import comm
from torch.utils.data import IterableDataset

from dnl_d2.errors import UsageError
from dnl_d2_imagenet.folders import below_datasets, register

_PICTURES = ("jpg", "jpeg", "png", "webp", "ppm")
_CLASS = "cls"


class TarShards(IterableDataset):
    """The samples of tar shards, as a stream.

    In training the stream has no end, and processes and their workers draw whole shards at random,
    each for itself; in evaluation each sample comes once, from shards that are dealt out among
    them.

    Args:
        paths: of the shards.
        length: how many samples there are.
        endless: whether it is for training.
        shuffle: samples that are drawn from at a time, in training.
    """

    def __init__(self, paths: Sequence[str], *, length: int, endless: bool, shuffle: int = 2000):
        self._paths, self._length = list(paths), length
        self._endless, self._shuffle = endless, shuffle

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for sample in self._stream():
            yield _record(sample)

    def _stream(self) -> Iterator[dict[str, Any]]:
        wds = _webdataset()
        stages = [wds.tarfile_to_samples(handler=_broken_shard)]
        if self._endless:
            # The default seed is the time: workers that start together would draw alike.
            source = wds.ResampledShards(self._paths, deterministic=False)
            stages += [wds.shuffle(self._shuffle)]
        else:
            source = wds.SimpleShardList(self._paths, seed=None)
            stages = [wds.split_by_node, wds.split_by_worker, *stages]
        yield from wds.DataPipeline(source, *stages)


def tar_shards(
    names: str, pattern: str, *, num_classes: int, training: bool, length: int | None = None
) -> TarShards:
    """The samples of tar files that `webdataset` has written.

    Args:
        names: what the dataset is registered as; see :func:`~dnl_d2_imagenet.image_folder`.
        pattern: paths with braces or wildcards, such as ``imagenet/train-{000000..000146}.tar``;
            if it is relative, below ``$DETECTRON2_DATASETS``. Members of one name are a sample:
            a picture and ``.cls``, its class in digits.
        num_classes: K; classes are known by their numbers.
        training: see :class:`TarShards`.
        length: how many samples there are; None to count them, which reads through the tars.

    Raises:
        UsageError: webdataset is not installed, nothing matches, a shard is no tar file or is
            empty, or there are fewer shards than processes.
    """
    _webdataset()
    paths = _paths(names, pattern)
    counts = [_count(names, path) for path in paths] if length is None else [length]
    if not sum(counts):
        raise UsageError(f"dataset {names}: there is no sample in {pattern}")
    if not training and len(paths) < comm.get_world_size():
        raise UsageError(
            f"dataset {names}: {len(paths)} shards cannot be dealt out to {comm.get_world_size()} "
            "processes: write more shards"
        )
    shards = TarShards(paths, length=sum(counts), endless=training)
    register(names, shards, [str(number) for number in range(num_classes)])
    return shards


def _webdataset() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise UsageError(
            "tar shards are read with a package that is not here: pip install webdataset"
        ) from error
    return webdataset


def _paths(names: str, pattern: str) -> list[str]:
    import braceexpand  # which webdataset needs

    expanded = [*braceexpand.braceexpand(below_datasets(pattern))]
    paths = [p for e in expanded for p in (sorted(glob.glob(e)) if glob.has_magic(e) else [e])]
    if not paths:
        raise UsageError(f"dataset {names}: no file matches {below_datasets(pattern)}")
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UsageError(
            f"dataset {names}: shard {missing[0]} does not exist ({len(missing)} such)"
        )
    return paths


def _count(names: str, path: str) -> int:
    """Samples of a shard that have both a picture and a class.

    Raises:
        UsageError: it is no tar file, is empty, or lacks one of the two throughout.
    """
    try:
        with tarfile.open(path) as tar:
            members = [member.name.rpartition(".") for member in tar if member.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"dataset {names}: shard {path} is no whole tar file ({error})") from error
    if not members:
        raise UsageError(f"dataset {names}: shard {path} is empty: leave it out")
    pictures = {stem for stem, _, ending in members if ending.lower() in _PICTURES}
    labelled = {stem for stem, _, ending in members if ending == _CLASS}
    for kind, found in ((f"picture ({', '.join(_PICTURES)})", pictures), (f".{_CLASS}", labelled)):
        if not found:
            raise UsageError(f"dataset {names}: no sample of shard {path} has a {kind}")
    return len(pictures & labelled)


def _record(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as a record of Detectron2's, the picture still encoded.

    Returns:
        Instead of what it lacks, ``broken``: why it cannot be used.
    """
    name = f"{sample['__url__']}: {sample['__key__']}"
    if _CLASS not in sample:
        return {"file_name": name, "broken": f"it has no {_CLASS}"}
    try:
        record = {"file_name": name, "category_id": int(sample[_CLASS])}
    except ValueError:
        return {"file_name": name, "broken": f"its class is {sample[_CLASS]!r}, no number"}
    ending = next((e for e in _PICTURES if e in sample), None)
    if ending is None:
        return {**record, "broken": "it has no picture"}
    return {**record, "file_name": f"{name}.{ending}", "encoded": sample[ending]}


def _broken_shard(error: Exception) -> bool:
    # webdataset appends the file to what the error has to say.
    reason = " ".join(str(error.args[0] if error.args else error).split())
    raise UsageError(f"a shard cannot be read: {reason}") from error
