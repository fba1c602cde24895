"""Real processes that share no folder give what one process gives."""

import json

import pytest

from tests.evaluation.sem_seg_data import write_cityscapes
from tests.evaluation.workers import KINDS, evaluate_shares
from tests.processes import call_in_group

# How many images, and which of them each process gets: of three the last of four gets none.
SHARES = {
    (5, 2): [[0, 1, 2], [3, 4]],
    (5, 4): [[0, 1], [2], [3], [4]],
    (3, 4): [[0], [1], [2], []],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``5-of-2/1``: what the second of two processes has found in five images."""
    root = tmp_path_factory.mktemp("processes")
    records = write_cityscapes(root / "cityscapes", images=5)
    evaluate_shares(root, records, [3, 5])
    call_in_group(evaluate_shares, 2, root, records, [5])
    call_in_group(evaluate_shares, 4, root, records, [3, 5])
    return root


@pytest.mark.parametrize(("images", "processes"), SHARES)
@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_equal_one(folder, kind, images, processes):
    alone, first, *others = (
        json.loads((folder / part / f"{kind}.json").read_text())
        for part in [
            f"{images}-of-1/0",
            *(f"{images}-of-{processes}/{rank}" for rank in range(processes)),
        ]
    )
    # The sampler gives every image to exactly one process.
    assert [part["images"] for part in (first, *others)] == SHARES[images, processes]
    task, figure = ("bbox", "AP") if kind == "coco" else ("sem_seg", "mIoU")
    assert first["results"][task][figure] > 0
    assert json.dumps(first["results"]) == json.dumps(alone["results"])  # to the last digit
    assert [other["results"] for other in others] == [None] * (processes - 1)


@pytest.mark.parametrize(("images", "processes"), SHARES)
@pytest.mark.parametrize(("kind", "predictions"), [("sem_seg", 0), ("cityscapes_sem_seg", 1)])
def test_only_the_main_process_reports(folder, kind, predictions, images, processes):
    whole, main, *others = (
        {p.name: p.read_bytes() for p in (folder / part / kind).rglob("*") if p.is_file()}
        for part in [
            f"{images}-of-1/0",
            *(f"{images}-of-{processes}/{rank}" for rank in range(processes)),
        ]
    )
    assert len(whole) == 4 + predictions * images
    together = dict(main)
    for other, share in zip(others, SHARES[images, processes][1:], strict=True):
        # Each process keeps the predictions that it made.
        assert len(other) == sum(n.endswith("_pred.png") for n in other) == predictions * len(share)
        assert not set(together) & set(other)
        together |= other
    assert together == whole
