"""Files that have Detectron2's names already: this library's own, and Detectron2's model zoo."""

from dnl_d2.checkpoint.keymap import PARAM, Rule, State
from dnl_d2.checkpoint.source import Source

_PARTS = "backbone|sem_seg_head|proposal_generator|roi_heads|head|ins_embed_head|point_head"


def _rules(state: State) -> list[Rule]:
    return [
        Rule("pixel_{which:mean|std}", None, why="part of the config"),
        Rule("{path:*}anchor_generator.cell_anchors.{i}", None, why="part of the config"),
        Rule(f"classifier.{PARAM}", f"classifier.{PARAM}"),
        Rule(f"{{part:{_PARTS}}}.{{rest:*}}", f"{{part:{_PARTS}}}.{{rest:*}}"),
    ]


def _bare_rules(state: State) -> list[Rule]:
    return [
        Rule("stem.fc.{any:*}", None, why="ImageNet classifier"),
        Rule("stem.{rest:*}", "backbone.stem.{rest:*}"),
        Rule("res{s}.{rest:*}", "backbone.res{s}.{rest:*}"),
        Rule("fc{any:*}", None, why="ImageNet classifier"),
        Rule(f"linear.{PARAM}", f"classifier.{PARAM}"),
    ]


# The input format of these is that of their config, which the file does not tell.
WHOLE = Source(
    name="detectron2",
    title="Detectron2 or this library",
    signature=("backbone{path:*}stem.conv1.weight", "backbone{path:*}res2.0.conv1.weight"),
    rules=_rules,
    input_format=None,
)
BARE = Source(
    name="detectron2-backbone",
    title="a bare Detectron2 ResNet",
    signature=("stem.conv1.weight", "res2.0.conv1.weight"),
    rules=_bare_rules,
    input_format=None,
)
