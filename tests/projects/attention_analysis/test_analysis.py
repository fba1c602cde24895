"""An analysis of models that are written here: what is averaged, and what is left out."""

import pytest
import torch
from torch import nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import build_context_block
from dnl_d2_attention.analysis import Source, analyze
from dnl_d2_attention.drawing import draw
from dnl_d2_attention.report import summarize


class Twice(nn.Module):
    """Runs a block on a picture and on its half."""

    def __init__(self, mask=None):
        super().__init__()
        self.block, self.mask = build_context_block("nl", 3).eval(), mask

    def forward(self, inputs):
        if "image" not in inputs[0]:
            return
        x = inputs[0]["image"][None]
        self.block(x, self.mask)
        if self.mask is None:
            self.block(x[..., : x.shape[3] // 2])


def run(model, images):
    records = [{"file_name": f"{i}", "image": image} for i, image in enumerate(images)]
    return analyze(model, Source(records, lambda record: record, lambda record: None))


def test_runs_of_a_block_are_one_figure_of_a_picture():
    images = [torch.randn(3, 4, 6), torch.randn(3, 4, 8)]
    found = run(Twice(), images)
    summaries = {(s.term, s.statistic): s for s in summarize(found.figures)}
    assert {s.pictures for s in summaries.values()} == {2}
    reach = [f.value for f in found.figures if (f.term, f.statistic) == ("uniform", "reach")]
    places = [[torch.cartesian_prod(torch.arange(4.0), torch.arange(w)) for w in (float(n), n / 2)]
              for n in (6, 8)]  # fmt: skip
    assert reach == pytest.approx(
        [sum(float(torch.cdist(p, p).mean()) for p in both) / 2 for both in places]
    )
    # Both runs add nothing, which is said once of a picture.
    assert [*found.left_out.values()] == [2]


def test_padding_leaves_out_the_logits_and_says_so():
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[..., 4:] = True
    found = run(Twice(mask), [torch.randn(3, 4, 6)])
    assert "logits" not in {figure.term for figure in found.figures}
    assert any("logits: some positions are padding" in what for what in found.left_out)


def test_what_no_block_ran_on_is_named():
    records = [{"file_name": "a", "image": torch.randn(3, 4, 6)}, {"file_name": "broken"}]
    source = Source(records, lambda record: record, lambda record: None)
    assert analyze(Twice(), source).unreadable == ["broken: the model runs no context block on it"]
    with pytest.raises(
        UsageError, match=r"nothing could be analysed, .* broken: the model runs no"
    ):
        analyze(Twice(), Source(records[1:], source.mapper, source.truth))


def test_a_block_without_figures_has_an_empty_picture():
    assert draw([], "block", "a block").startswith(b"\x89PNG")
