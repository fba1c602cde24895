"""Which pictures are set aside for validation."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.errors import UsageError
from dnl_d2.own_data.split import split_coco, validation_share


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


@pytest.mark.parametrize(
    "held",
    [{"a": {0}}, {"a": {0}, "b": {1}}, {"a": {0}, "b": {1}, "c": set()}, {"a": set(), "b": set()}],
)
def test_where_none_can_be_spared_it_says_so(held):
    with pytest.raises(UsageError, match=f"of {len(held)} pictures none can be set aside"):
        validation_share(held, 0.5)


def test_pictures_without_a_class_may_go():
    held = {"a": set(), "b": set(), "c": {0}, "d": {0}}
    chosen = validation_share(held, 0.5)
    assert len(chosen) == 2 and len({"c", "d"} & set(chosen)) == 1


def coco(*annotations):
    """Four images and what lies on them, (number of the image, its class, what else it has)."""
    content = {
        "images": [
            {"id": n, "height": 9, "width": 9, "file_name": f"{n}.png"} for n in range(1, 5)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(4)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": [1, 1, 4, 4], **more}
            for n, (image, kind, more) in enumerate(annotations)
        ],
    }
    return msgspec.convert(content, CocoForm)


CROWD, FLAT, OUTSIDE = {"iscrowd": 1}, {"bbox": [1, 1, 0, 4]}, {"bbox": [20, 1, 4, 4]}
THIN = {"segmentation": [[1, 1, 2, 2]]}


@pytest.mark.parametrize("odd", [CROWD, FLAT, OUTSIDE, THIN])
def test_only_objects_that_are_evaluated_make_a_set(odd):
    form = coco((1, 1, {}), (2, 1, {}), (3, 0, odd), (4, 0, odd))
    train, test = split_coco(form, 0.25)
    assert [image.id for image in test.images] in ([1], [2])
    assert [entry.image_id for entry in test.annotations] == [test.images[0].id]
    assert len(train.images) == len(train.annotations) == 3


@pytest.mark.parametrize(
    "annotations",
    [
        [(1, 0, {}), (2, 0, CROWD), (3, 0, CROWD), (4, 0, CROWD)],
        [(1, 0, {}), (2, 1, {}), (3, 2, {})],
    ],
)
def test_a_set_without_objects_is_refused(annotations):
    with pytest.raises(UsageError, match="of 4 pictures none can be set aside: each is the only"):
        split_coco(coco(*annotations), 0.5)
