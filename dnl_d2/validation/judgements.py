"""From counts to findings: what breaks training or evaluation, and what spoils it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dnl_d2.validation.findings import Finding, first_of
from dnl_d2.validation.summary import SetSummary

_MUCH_IGNORED = 0.5
_RARE = 1e-3  # of the labelled pixels
_MOST_COLORS = 256
_MAIN_COLOR = 1e-2  # of the pixels, in labels whose borders hold colours in between
_TOLERANCE = 16  # that far from its colour may smearing take a pixel
_SHOWN = 8  # values or classes that a line lists

# What holds for a file: reason in SetSummary.files -> text behind their number.
_ERRORS_BY_FILE = {
    "broken": "files cannot be used",
    "unlabelled": "images have no label (sem_seg_file_name)",
    "size": "images differ in size (width x height) from their label: they must match pixel by "
    "pixel as stored",
}
_WARNINGS_BY_FILE = {
    "smeared": "labels have borders full of values in between, as JPEG compression or smooth "
    "(anti-aliased) drawing leaves them: save them anew as PNG without smoothing",
    "unlabelled_pixels": "labels are ignored in whole: nothing is learned from them",
    "constant": "images are of one colour",
    "turned": "images have an EXIF rotation, which is not applied: see that their labels fit the "
    "stored pixels",
    "dim": "grey images of 16 bits fill 12 of them at most, and are nearly black once scaled to 8: "
    "stretch their values and save them anew",
    "repeated": "images equal another one of the set pixel by pixel",
}


def judge(summary: SetSummary, training: SetSummary) -> list[Finding]:
    """Everything that is to say about one set, errors first.

    Args:
        summary: the set.
        training: that for training, perhaps the same.
    """
    findings = list(summary.source.findings)
    for level, texts in (("error", _ERRORS_BY_FILE), ("warning", _WARNINGS_BY_FILE)):
        for code, text in texts.items():
            if summary.files[code]:
                findings.append(Finding(level, code, text, summary.files[code]))
    findings += [*_colored(summary), *judge_labels(summary, training)]
    if not summary.source.pairs and not any(f.level == "error" for f in findings):
        findings.append(Finding("error", "empty", "there is no image with a label"))
    return sorted(findings, key=lambda finding: finding.level)


def image_warning(code: str, files: Sequence[str]) -> Finding:
    """What is to say about images that are ``turned`` or ``dim``."""
    return Finding("warning", code, _WARNINGS_BY_FILE[code], files)


def judge_labels(summary: SetSummary, training: SetSummary) -> list[Finding]:
    """What is to say about the values of labels; see :func:`judge` for the arguments."""
    return [*_values(summary, training), *_palettes(summary), *_ignored(summary)]


def judge_variety(summaries: Sequence[SetSummary], num_classes: int) -> list[Finding]:
    """Whether sets together hold a single class, unless that has been said in other words."""
    seen = set[int]().union(*(summary.seen() for summary in summaries))
    if len(seen) != 1 or num_classes < 2 or any(s.invalid() or is_binary(s) for s in summaries):
        return []
    text = f"labels hold the class {min(seen)} alone, so nothing else is learned"
    return [Finding("error", "one_class", text)]


def judge_classes(summaries: Sequence[SetSummary], num_classes: int) -> list[tuple[str, Finding]]:
    """What the classes of all sets together show, each with the name of the sets concerned."""
    everything = " + ".join(summary.source.name for summary in summaries)
    read = [summary for summary in summaries if summary.values]
    if not read:
        return []
    seen = set.union(*(summary.seen() for summary in read))
    found = [(everything, finding) for finding in judge_variety(read, num_classes)]
    never = [value for value in range(num_classes) if value not in seen]
    if seen and min(seen) > 0 and len(never) == min(seen):
        text = (
            f"labels start at {min(seen)}, class 0 is never used: if they count from 1, subtract "
            "1 (the classes are 0, 1, ...)"
        )
        found.append((everything, Finding("warning", "starts_above_0", text)))
    elif never:
        text = f"classes never seen: {_named(never, summaries)}"
        found.append((everything, Finding("warning", "class_never_seen", text)))
    for summary in read:
        lacking = [value for value in sorted(seen) if value not in summary.seen()]
        if lacking:
            text = f"lacks classes that other sets have: {_named(lacking, summaries)}"
            found.append((summary.source.name, Finding("warning", "class_lacking", text)))
    return found


def judge_overlap(train: SetSummary, test: SetSummary) -> list[Finding]:
    """Pictures of ``test`` that ``train`` has as well."""
    same = [
        f"{path} = {train.digests[digest]}"
        for digest, path in test.digests.items()
        if digest in train.digests
    ]
    text = f"images are in {train.source.name} as well (pixel by pixel): the figures will flatter"
    return [Finding("warning", "leak", text, same)] if same else []


def judge_balance(summary: SetSummary) -> list[Finding]:
    """Classes that hardly occur."""
    labelled = max(summary.pixels - summary.ignored, 1)
    rare = [v for v in sorted(summary.seen()) if summary.values[v] < _RARE * labelled]
    if not rare:
        return []
    text = (
        f"classes with less than {_RARE:.1%} of the labelled pixels: {_named(rare, [summary])}; "
        "class weights may help"
    )
    return [Finding("warning", "imbalance", text)]


def is_binary(summary: SetSummary) -> bool:
    """Whether labels are black and white, with a white that is taken for "no label"."""
    return set(summary.values) == {0, 255} and summary.is_ignored(255)


def has_gaps(summary: SetSummary) -> bool:
    """Whether values are far apart although nobody told the classes: greys rather than ids."""
    return summary.source.classes is None and _far_apart(summary.seen())


def convertible_colors(summaries: Sequence[SetSummary]) -> tuple[list[tuple[int, float]], int]:
    """The colours that stand for classes where labels do not hold ids.

    Returns:
        (0xRRGGBB, share of the pixels) of each, greys by value and others by frequency, and how far
        pixels may be from them; no colour if there is nothing to convert.
    """
    colors: Counter = Counter()
    for summary in summaries:
        colors.update(summary.colors)
        if is_binary(summary) or has_gaps(summary) or _only_greys(summary):
            colors.update(_greys(summary))
    total = max(colors.total(), 1)
    smeared = any(summary.files["smeared"] for summary in summaries)
    frequent = [code for code, _ in colors.most_common(_MOST_COLORS)]
    main = _peaks(colors) if smeared and colors else frequent
    if all(code % 0x010101 == 0 for code in main):
        main.sort()
    return [(code, colors[code] / total) for code in main], _TOLERANCE if smeared else 0


def _far_apart(values: set[int]) -> bool:
    return bool(values) and 2 * len(values) <= max(values)


def _only_greys(summary: SetSummary) -> bool:
    """Whether values that are no class are far apart, and those of no class but 0 are there."""
    wrong = summary.invalid()
    return bool(wrong) and summary.seen() <= {0} and _far_apart({0, *wrong})


def _greys(summary: SetSummary) -> dict[int, int]:
    if set(summary.label_modes) != {"L"}:  # a palette's indices are not its colours
        return {}
    white = is_binary(summary) or summary.files["smeared"]  # and no value to be ignored
    values = summary.values.items()
    return {v * 0x010101: n for v, n in values if white or not summary.is_ignored(v)}


def _peaks(colors: Counter) -> list[int]:
    """The colours around which the others lie, by the pixels of each and its neighbourhood."""
    codes, counts = np.array(list(colors)), np.array(list(colors.values()))
    channels = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    left, peaks = counts.copy(), []
    while left.any():
        best = int(left.argmax())
        distance = abs(channels - channels[best]).max(axis=1)
        if counts[distance <= _TOLERANCE].sum() >= _MAIN_COLOR * counts.sum():
            peaks.append(int(codes[best]))
        left[distance <= 2 * _TOLERANCE] = 0
    return peaks


def _colored(summary: SetSummary) -> list[Finding]:
    files = summary.files["colored"]
    if not files:
        return []
    text = f"labels hold {len(summary.colors)} colours, not class ids: convert them"
    if all(code % 0x010101 == 0 for code in summary.colors):
        text = (
            "labels hold greys in three channels, not one class id per pixel: keep one channel if "
            "the greys are the ids"
        )
    return [Finding("error", "colored", text, files)]


def _values(summary: SetSummary, training: SetSummary) -> list[Finding]:
    findings = []
    invalid, num_classes = summary.invalid(), summary.num_classes or 0
    if invalid:
        known = summary.num_classes
        text = "labels hold values that are no class"
        if known is not None:
            text += f" (0 to {known - 1}; {summary.source.ignore_label} is ignored)"
        text += f": {first_of(invalid, _SHOWN)}{_shift(summary, invalid)}"
        findings.append(Finding("error", "invalid_value", text, summary.files["invalid"]))
    if is_binary(summary):
        text = (
            "labels hold 0 and 255 only, and 255 is ignored, so nothing but class 0 is learned: "
            "write 1 for white"
        )
        # Classes that are nowhere in the training set; elsewhere they may be missing by chance.
        lost = is_binary(training) and num_classes > 1
        findings.append(Finding("error" if lost else "warning", "binary", text))
    elif has_gaps(summary):
        seen = first_of(sorted(summary.seen()), _SHOWN)
        text = (
            f"labels hold the values {seen}, which look like greys: give the classes, or number "
            "them 0, 1, 2, ..."
        )
        findings.append(Finding("warning", "gaps", text))
    ignore = summary.source.ignore_label
    if summary.num_classes is not None and 0 <= ignore < summary.num_classes:
        text = f"the ignored value {ignore} is one of the classes: it is never learned"
        findings.append(Finding("warning", "ignored_class", text))
    return findings


def _palettes(summary: SetSummary) -> list[Finding]:
    """Tools that number the colours of each picture anew write files like these."""
    for value, colors in sorted(summary.palette.items()):
        if len(colors) > 1 and not summary.is_ignored(value):
            (one, first), (two, second) = list(colors.items())[:2]
            text = (
                f"palettes show the value {value} as {_rgb(one)} in {first} and as {_rgb(two)} in "
                f"{second}: see that it is one class in all labels"
            )
            return [Finding("warning", "palettes", text)]
    return []


def _rgb(code: int) -> str:
    return str(tuple(code.to_bytes(3, "big")))


def _shift(summary: SetSummary, invalid: list[int]) -> str:
    """What to do, in the two usual cases of being off by one in particular."""
    known = summary.num_classes
    if invalid == [known] and 0 not in summary.values:
        return "; they count from 1: subtract 1"
    if invalid == [known]:
        return "; if 0 means no label, subtract 1 and write 255 for 0"
    return "; correct the labels or the classes"


def _ignored(summary: SetSummary) -> list[Finding]:
    if not summary.pixels or is_binary(summary):
        return []
    if summary.ignored == summary.pixels:
        return [Finding("error", "all_ignored", "every pixel of every label is ignored")]
    if summary.ignore_share > _MUCH_IGNORED:
        text = f"{summary.ignore_share:.0%} of the pixels are ignored"
        return [Finding("warning", "much_ignored", text)]
    return []


def _named(values: Sequence[int], summaries: Sequence[SetSummary]) -> str:
    classes = next((s.source.classes for s in summaries if s.source.classes), None) or []
    named = [f"{v} {classes[v]}" if v < len(classes) else v for v in values]
    return first_of(named, _SHOWN)
