"""Which pictures are set aside for validation."""

from collections import Counter

import numpy as np
import pytest

from dnl_d2.errors import UsageError
from dnl_d2.own_data.split import validation_share


def pictures(count, rng):
    """Pictures with a common class, one in every tenth and one in three of them."""
    held = {
        f"picture{n:04d}": {"common", *(["some"] if rng.random() < 0.1 else [])}
        for n in range(count)
    }
    for name in list(held)[:3]:
        held[name].add("rare")
    return held


@pytest.mark.parametrize("count", [10, 57, 400])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_share_and_classes(count, share, rng):
    held = pictures(count, rng)
    chosen = validation_share(held, share)
    assert len(chosen) == round(share * count) and chosen == sorted(set(chosen))
    training = Counter(kind for name in held if name not in chosen for kind in held[name])
    validation = Counter(kind for name in chosen for kind in held[name])
    total = training + validation
    assert all(training[kind] for kind in total)
    assert validation["rare"] >= 1
    if count == 400:
        assert validation["some"] == pytest.approx(share * total["some"], abs=3)


def test_it_is_always_the_same_one_whatever_the_order():
    held = pictures(50, np.random.default_rng(1))
    turned = dict(reversed(held.items()))
    assert validation_share(held, 0.2) == validation_share(turned, 0.2)


def test_the_only_picture_of_a_class_stays_for_training():
    held = {"a": {0}, "b": {0}, "c": {0, 1}, "d": {2}}
    assert validation_share(held, 0.5) == ["a", "b"]


@pytest.mark.parametrize("held", [{"a": {0}}, {"a": {0}, "b": {1}}])
def test_where_none_can_be_spared_it_says_so(held):
    with pytest.raises(UsageError, match=f"of {len(held)} pictures none can be set aside"):
        validation_share(held, 0.5)


def test_pictures_without_a_class_may_go():
    assert len(validation_share({"a": set(), "b": set(), "c": {0}}, 0.4)) == 1
