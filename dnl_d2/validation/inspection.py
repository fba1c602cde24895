"""Inspecting one or more sets, and the result."""

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from dnl_d2.validation.findings import Finding, reordered
from dnl_d2.validation.judgements import (
    has_gaps,
    judge,
    judge_balance,
    judge_classes,
    judge_overlap,
)
from dnl_d2.validation.labelled_sets import LabelledSet
from dnl_d2.validation.scan import scan
from dnl_d2.validation.summary import SetSummary, median_frequency_weights


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Args:
        summaries: the counts of each set.
        findings: the names of the sets concerned, and what was found in them.
        classes: names of the classes; made up if nobody has told; empty if the labels do not
            show how many there are.
        weights: of the classes, by the first set, if it holds several and nothing is wrong.
    """

    summaries: list[SetSummary]
    findings: list[tuple[str, Finding]]
    classes: list[str]
    weights: list[float]

    @property
    def errors(self) -> int:
        """How many findings break training or evaluation."""
        return sum(finding.level == "error" for _, finding in self.findings)


def inspect_sets(
    sets: Sequence[LabelledSet], *, num_classes: int | None = None, workers: int | None = None
) -> Inspection:
    """Reads every file of the sets and judges what they hold.

    Args:
        sets: the training set first; the others are compared with it.
        num_classes: of the model that will read them; None: that of each set.
        workers: threads; None for one per core, up to 16.
    """
    summaries, findings = [], []
    for source in sets:
        told = len(source.classes) if source.classes is not None else None
        if None not in (told, num_classes) and told != num_classes:
            text = f"has {told} classes, but the model predicts {num_classes}"
            findings.append((source.name, Finding("error", "num_classes", text)))
        if source.classes not in (None, sets[0].classes):
            moved = reordered(sets[0].classes or [], source.classes or [])
            text = f"has other classes than {sets[0].name}"
            text += ": the same names must have the same numbers" if moved else ""
            level = "error" if moved else "warning"
            findings.append((source.name, Finding(level, "other_classes", text)))
        summary = SetSummary(source, num_classes or told)
        pairs = scan(source.pairs, workers=workers)
        for facts in tqdm(pairs, source.name, total=len(source.pairs), unit="pair"):
            summary.add(facts)
        summaries.append(summary)
    for summary in summaries:
        findings += [(summary.source.name, finding) for finding in judge(summary, summaries[0])]
    for summary in summaries[1:]:
        overlap = judge_overlap(summaries[0], summary)
        findings += [(summary.source.name, finding) for finding in overlap]
    classes = _classes(summaries)
    weights = []
    if classes and num_classes in (None, len(classes)) and summaries[0].seen():
        findings += judge_classes(summaries, len(classes))
        balance = judge_balance(summaries[0])
        findings += [(summaries[0].source.name, finding) for finding in balance]
        sound = not any(finding.level == "error" for _, finding in findings)
        if sound and len(summaries[0].seen()) > 1:
            weights = median_frequency_weights(summaries[0], len(classes))
    findings.sort(key=lambda item: item[1].level)  # errors first, else in order
    return Inspection(summaries, findings, classes, weights)


def _classes(summaries: Sequence[SetSummary]) -> list[str]:
    for summary in summaries:
        if summary.source.classes is not None:
            return summary.source.classes
    seen = set().union(*(summary.seen() for summary in summaries))
    if not seen or any(has_gaps(summary) for summary in summaries):
        return []
    return [f"class_{value}" for value in range(max(seen) + 1)]
