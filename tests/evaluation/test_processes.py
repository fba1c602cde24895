"""Two real processes that share no folder give what one process gives."""

import json

import pytest
from torch import multiprocessing

from tests.evaluation.sem_seg_data import write_cityscapes
from tests.evaluation.workers import evaluate_part


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``one/0``: a single process; ``two/0`` and ``two/1``: two of them."""
    root = tmp_path_factory.mktemp("processes")
    for part in ("one/0", "two/0", "two/1"):
        (root / part).mkdir(parents=True)
    records = write_cityscapes(root / "cityscapes", images=5)
    evaluate_part(0, 1, records, str(root / "one"))
    multiprocessing.spawn(evaluate_part, (2, records, str(root / "two")), nprocs=2)
    return root


@pytest.mark.parametrize("kind", ["sem_seg", "cityscapes_sem_seg"])
def test_two_processes_equal_one(folder, kind):
    alone, first, second = (
        json.loads((folder / part / f"{kind}.json").read_text())
        for part in ("one/0", "two/0", "two/1")
    )
    # The sampler gives every image to exactly one process.
    assert (first["images"], second["images"]) == ([0, 1, 2], [3, 4])
    assert first["results"]["sem_seg"]["mIoU"] > 0
    assert json.dumps(first["results"]) == json.dumps(alone["results"])  # to the last digit
    assert second["results"] is None


@pytest.mark.parametrize(("kind", "predictions"), [("sem_seg", 0), ("cityscapes_sem_seg", 5)])
def test_only_the_main_process_reports(folder, kind, predictions):
    whole, main, other = (
        {p.name: p.read_bytes() for p in (folder / part / kind).rglob("*") if p.is_file()}
        for part in ("one/0", "two/0", "two/1")
    )
    assert len(whole) == 4 + predictions
    assert main | other == whole
    # Each process keeps the predictions that it made.
    assert len(other) == sum(name.endswith("_pred.png") for name in other) == 2 * bool(predictions)
    assert not set(main) & set(other)
