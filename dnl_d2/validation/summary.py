"""What the pairs of one set add up to, in memory that hardly grows with their number."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from dnl_d2.data.labels import ignored_values, invalid_values
from dnl_d2.validation.labelled_sets import LabelledSet
from dnl_d2.validation.scan import ImageFacts, LabelFacts, PairFacts

_MOST_COLORS = 50_000


class SetSummary:
    """Counts over a set; :meth:`add` takes one pair after the other.

    Attributes:
        source: the set.
        sizes, image_modes, label_modes: how many files of each; sizes are (height, width).
        values: label value -> pixels. images_with: value -> labels that hold it.
        labelled_with: value -> labelled pixels of the labels that hold it.
        colors: the same as ``values`` for labels that hold colours (0xRRGGBB).
        palette: value -> colours (0xRRGGBB) that palettes give it -> the first label with each.
        pixels: label pixels in all; ignored: how many of them are.
        digests: of the images' pixels -> the first image with them.
        files: reason -> the files it holds for, in order.
        held: stem of each image -> the classes on its label.
    """

    def __init__(self, source: LabelledSet, num_classes: int | None):
        self.source = source
        self.num_classes = num_classes
        self.sizes: Counter = Counter()
        self.image_modes: Counter = Counter()
        self.label_modes: Counter = Counter()
        self.values: Counter = Counter()
        self.images_with: Counter = Counter()
        self.labelled_with: Counter = Counter()
        self.colors: Counter = Counter()
        self.palette: dict[int, dict[int, str]] = defaultdict(dict)
        self.pixels = 0
        self.ignored = 0
        self.digests: dict[bytes, str] = {}
        self.files: dict[str, list[str]] = defaultdict(list)
        self.held: dict[str, frozenset[int]] = {}
        self._kinds: dict[frozenset[int], frozenset[int]] = {}  # one object for equal ones

    def add(self, facts: PairFacts) -> None:
        """Counts one pair in."""
        image, label = facts.pair
        self._add_image(image, facts.image)
        if label is None or facts.label is None:
            if not self.source.prediction_only:
                self.files["unlabelled"].append(image)
            return
        self.add_label(label, facts.label)
        kinds = frozenset(v for v in facts.label.values if not self.is_ignored(v))
        stem = os.path.splitext(os.path.basename(image))[0]
        self.held[stem] = self._kinds.setdefault(kinds, kinds)
        if not facts.image.error and not facts.label.error and facts.image.size != facts.label.size:
            sizes = "{1}x{0} and {3}x{2}".format(*facts.image.size, *facts.label.size)
            swapped = facts.image.turned and facts.image.size == facts.label.size[::-1]
            why = ", EXIF rotation" if swapped else ""
            self.files["size"].append(f"{image} ({sizes}{why})")

    def is_ignored(self, value: int) -> bool:
        """Whether training and evaluation leave the value out."""
        return value in ignored_values(self.num_classes, self.source.ignore_label)

    def invalid(self) -> list[int]:
        """The values found that are neither a class nor ignored, in order."""
        if self.num_classes is None:
            return sorted(value for value in self.values if value < 0)
        return self._invalid_among(self.values, self.num_classes)

    def seen(self) -> set[int]:
        """The classes found."""
        wrong = set(self.invalid())
        return {v for v in self.values if not self.is_ignored(v) and v not in wrong}

    @property
    def ignore_share(self) -> float:
        """Ignored pixels among all; 0 without any."""
        return self.ignored / max(self.pixels, 1)

    def _add_image(self, path: str, facts: ImageFacts) -> None:
        if facts.error:
            self.files["broken"].append(facts.error)
            return
        self.sizes[facts.size] += 1
        self.image_modes[facts.mode] += 1
        if facts.constant:
            self.files["constant"].append(path)
        if facts.turned:
            self.files["turned"].append(path)
        if facts.dim:
            self.files["dim"].append(path)
        first = self.digests.setdefault(facts.digest, path)
        if first != path:
            self.files["repeated"].append(f"{path} = {first}")

    def add_label(self, path: str, facts: LabelFacts) -> None:
        """Counts a label in; what is said of images stays as it was."""
        if facts.error:
            self.files["broken"].append(facts.error)
            return
        self.label_modes[facts.mode] += 1
        if facts.smeared:
            self.files["smeared"].append(path)
        if facts.colored:
            self.files["colored"].append(path)
            self.colors.update(facts.values)
            if len(self.colors) > _MOST_COLORS:
                self.colors = Counter(dict(self.colors.most_common(_MOST_COLORS // 5)))
            return
        labelled = sum(n for value, n in facts.values.items() if not self.is_ignored(value))
        total = facts.size[0] * facts.size[1]
        self.pixels += total
        self.ignored += total - labelled
        self.values.update(facts.values)
        for value, color in facts.palette.items():
            self.palette[value].setdefault(color, path)
        self.images_with.update(facts.values.keys())
        self.labelled_with.update(dict.fromkeys(facts.values, labelled))
        if not labelled:
            self.files["unlabelled_pixels"].append(path)
        if self.num_classes is None:
            return
        wrong = self._invalid_among(facts.values, self.num_classes)
        if wrong:
            shown = ", ".join(map(str, wrong[:3])) + (", ..." if len(wrong) > 3 else "")
            self.files["invalid"].append(f"{path} ({shown})")

    def _invalid_among(self, values: Iterable[int], num_classes: int) -> list[int]:
        found = np.array(sorted(values), np.int64)
        ignore_label = self.source.ignore_label
        return invalid_values(found, num_classes=num_classes, ignore_label=ignore_label)


def median_frequency_weights(summary: SetSummary, num_classes: int) -> list[float]:
    """Class weights by median-frequency balancing (Eigen and Fergus, ICCV 2015; SegNet).

    A class's frequency is its pixels / the labelled pixels of the images in which it occurs; its
    weight is the median of the frequencies / its own. A class that does not occur weighs 1: no
    pixel asks for its weight.
    """
    frequencies = {
        value: summary.values[value] / summary.labelled_with[value]
        for value in summary.seen()
        if value < num_classes
    }
    if not frequencies:
        return [1.0] * num_classes
    median = float(np.median(list(frequencies.values())))
    return [
        float(f"{median / frequencies[value]:.4g}") if value in frequencies else 1.0
        for value in range(num_classes)
    ]
