"""Setting pictures aside for validation."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping
from dataclasses import replace
from pathlib import Path

from dnl_d2.data.datasets.coco_json import object_kind
from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.errors import UsageError
from dnl_d2.files import write_text
from dnl_d2.validation import LabelledSet
from dnl_d2.validation.summary import SetSummary

NEAR_DUPLICATES = (
    "pictures that resemble each other, such as frames of one video, may be in both sets, where "
    "they make figures too good: set such pictures aside yourself"
)


def validation_share(classes: Mapping[str, Collection[Hashable]], share: float) -> list[str]:
    """Which pictures to set aside: always the same ones, and with every class that can spare one.

    A picture that alone holds a class stays for training. Starting from the rarest, classes give
    their share, as in iterative stratification (Sechidis et al., ECML PKDD 2011), in an order by
    the pictures' names that does not change as other pictures come or go.

    Args:
        classes: of each picture, by its name.
        share: of all pictures, between 0 and 1.

    Returns:
        Names, sorted.

    Raises:
        UsageError: no picture with a class can be set aside.
    """
    order = sorted(classes, key=_drawn)
    count = Counter(kind for kinds in classes.values() for kind in kinds)
    holders = defaultdict(list)
    for name in order:
        for kind in classes[name]:
            holders[kind].append(name)
    size = min(max(1, round(share * len(order))), len(order) - 1)
    left, chosen, given = Counter(count), set[str](), Counter[Hashable]()

    def choose(name: str) -> None:
        if len(chosen) < size and name not in chosen and all(left[k] > 1 for k in classes[name]):
            chosen.add(name)
            left.subtract(classes[name])
            given.update(classes[name])

    for kind in sorted(count, key=lambda kind: (count[kind], str(kind))):
        for name in holders[kind]:
            if given[kind] >= max(1, round(share * count[kind])):
                break
            choose(name)
    for name in order:
        choose(name)
    if not any(classes[name] for name in chosen):
        raise UsageError(
            f"of {len(order)} pictures none can be set aside: each is the only one with a class, "
            "or has none; label more"
        )
    return sorted(chosen)


def set_aside(
    summary: SetSummary, share: float, lists: Mapping[str, str], *, name: str
) -> tuple[LabelledSet, LabelledSet]:
    """Splits a set of two folders in two, by lists of stems that it writes.

    Args:
        summary: of the whole set.
        share: see :func:`validation_share`.
        lists: the files to write, by ``train`` and ``val``.
        name: what the names of the two sets start with.

    Raises:
        UsageError: see :func:`validation_share`, or a list cannot be written.
    """
    chosen = set(validation_share(summary.held, share))
    sets = []
    for split, path in lists.items():
        stems = [stem for stem in summary.held if (stem in chosen) == (split == "val")]
        kept = set(stems)
        pairs = [pair for pair in summary.source.pairs if Path(pair[0]).stem in kept]
        write_text(path, "".join(f"{stem}\n" for stem in stems))
        sets.append(replace(summary.source, name=f"{name}_{split}", pairs=pairs, stems_file=path))
    return sets[0], sets[1]


def split_coco(form: CocoForm, share: float) -> tuple[CocoForm, CocoForm]:
    """A file in COCO's form as two, the second one for validation.

    Only objects that are learned and evaluated decide; other annotations go with their images.

    Args:
        form: as :func:`~dnl_d2.data.datasets.coco_json.read_coco_json` reads it.
        share: see :func:`validation_share`.

    Raises:
        UsageError: see there.
    """
    names = {image.id: str(image.file_name) for image in form.images}
    held: dict[str, set[Hashable]] = {name: set() for name in names.values()}
    images = {image.id: image for image in form.images}
    for entry in form.annotations or ():
        if object_kind(entry, images[entry.image_id]) is None:
            held[names[entry.image_id]].add(entry.category_id)
    chosen = set(validation_share(held, share))

    def part(validation: bool) -> CocoForm:
        ids = {id for id, name in names.items() if (name in chosen) == validation}
        return CocoForm(
            images=[image for image in form.images if image.id in ids],
            categories=form.categories,
            annotations=[entry for entry in form.annotations or () if entry.image_id in ids],
        )

    return part(False), part(True)


def _drawn(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
