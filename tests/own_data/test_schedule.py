"""How long to train on so many pictures."""

import pytest

from dnl_d2.own_data.schedule import fitting_schedule

BASE = {"epochs": 60, "base_batch_size": 16, "base_max_iter": 80_000}


@pytest.mark.parametrize(
    ("images", "batch_size", "max_iter", "warmup", "period"),
    [
        (30, 4, 1000, 50, 100),  # the least
        (400, 4, 6000, 300, 600),  # 60 * 400 / 4
        (403, 4, 6100, 305, 610),  # rounded up to hundreds
        (20_210, 16, 75_800, 1000, 7580),
        (118_000, 16, 80_000, 1000, 8000),  # no longer than the base
        (118_000, 4, 320_000, 1000, 32_000),  # which saw as many pictures
    ],
)
def test_the_rule(images, batch_size, max_iter, warmup, period):
    found = fitting_schedule(images, batch_size=batch_size, **BASE)
    assert (found.max_iter, found.warmup, found.period) == (max_iter, warmup, period)
    assert found.rate_factor == batch_size / 16 and found.max_iter % found.period == 0
    assert found.warmup < found.steps[0] < found.steps[1] < found.max_iter


def test_a_batch_is_no_larger_than_the_set():
    found = fitting_schedule(1, batch_size=4, **BASE)
    assert found.batch_size == 1 and found.rate_factor == 1 / 16
    assert found.remark == "1000 times 1 picture in batches of 1"


def test_a_short_base_stays_short():
    base = {"epochs": 60, "base_batch_size": 4, "base_max_iter": 300}
    assert fitting_schedule(8, batch_size=4, **base).max_iter == 300
