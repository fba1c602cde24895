import pytest
import torch

from dnl_d2.checkpoint.keymap import NORM, PARAM, Rule, strip_prefix, to_ours, to_public, unwrapped
from dnl_d2.errors import UsageError
from tests.checkpoint.models import assert_equal

RULES = [
    Rule("layer{s}.{b}.conv{i}.weight", "res{s+1}.{b}.conv{i}.weight"),
    Rule(f"layer{{s}}.{{b}}.bn{{i}}.{NORM}", f"res{{s+1}}.{{b}}.conv{{i}}.norm.{NORM}"),
    Rule("fc.{rest:*}", None, why="classifier"),
    Rule(
        f"out.{PARAM}",
        f"predictor.{PARAM}",
        to_ours=lambda t: t.flip(0),
        to_public=lambda t: t.flip(0),
    ),
    Rule("key.weight", "shared.weight"),
    Rule("query.weight", "shared.weight"),
]


def public_state():
    shared = torch.randn(2, 2)
    return {
        "layer3.22.conv2.weight": torch.randn(3),
        "layer3.22.bn2.running_mean": torch.randn(3),
        "layer3.22.bn2.num_batches_tracked": torch.tensor(7),
        "out.bias": torch.tensor([1.0, 2.0, 3.0]),
        "key.weight": shared,
        "query.weight": shared.clone(),
    }


def test_names_and_values_change_as_the_rules_say():
    state = public_state() | {"fc.weight": torch.zeros(1), "layer3.bn2.weight": torch.zeros(1)}
    done = to_ours(state, RULES)
    assert list(done.state) == [
        "res4.22.conv2.weight",
        "res4.22.conv2.norm.running_mean",
        "res4.22.conv2.norm.num_batches_tracked",
        "predictor.bias",
        "shared.weight",
    ]
    assert done.state["predictor.bias"].tolist() == [3.0, 2.0, 1.0]
    assert done.dropped == {"fc.weight": "classifier"}
    assert done.unexpected == ["layer3.bn2.weight"]
    assert done.renamed["out.bias"] == "predictor.bias"


def test_there_and_back_is_the_same_file():
    state = public_state()
    back = to_public(to_ours(state, RULES).state, RULES)
    assert not back.unexpected
    assert_equal(back.state, state)


def test_the_input_is_left_alone():
    state = public_state()
    copy = {key: value.clone() for key, value in state.items()}
    to_ours(state, RULES).state["predictor.bias"].zero_()
    assert list(state) == list(copy)
    assert_equal(state, copy)


def test_two_names_of_one_parameter_must_agree():
    state = public_state()
    state["query.weight"] = state["query.weight"] + 1
    with pytest.raises(UsageError, match=r"'query.weight' and 'key.weight' are one parameter"):
        to_ours(state, RULES)


def test_a_rule_that_cannot_be_read_back_is_refused():
    with pytest.raises(ValueError, match="different fields"):
        Rule("layer{s}.{b}.weight", "res{s}.weight")
    with pytest.raises(ValueError, match="stands twice"):
        to_ours({"a": torch.zeros(1)}, [Rule("a{i}.{i}", "b{i}")])


def test_a_prefix_is_taken_off_only_if_all_keys_have_it():
    one = torch.zeros(1)
    assert set(strip_prefix({"module.a": one, "module.b": one}, "module.")) == {"a", "b"}
    assert set(strip_prefix({"module.a": one, "b": one}, "module.")) == {"module.a", "b"}
    assert strip_prefix({}, "module.") == {}


def test_wrappers_come_off_where_the_rest_is_known():
    def names(*keys):
        return list(unwrapped(dict.fromkeys(keys, torch.zeros(1)), lambda s: "backbone.a" in s))

    for wrapper in ("", "module.", "_orig_mod.", "model.", "module._orig_mod.", "x.y.module."):
        assert names(f"{wrapper}backbone.a", f"{wrapper}head.b") == ["backbone.a", "head.b"]
    assert names("backbone._orig_mod.a", "head.b") == ["backbone.a", "head.b"]
    assert names("model.backbone.a", "loss.b") == ["model.backbone.a", "loss.b"]
    assert names("model.other.a", "model.head.b") == ["model.other.a", "model.head.b"]
    assert names("module.other.a", "module.other.b") == ["other.a", "other.b"]
    assert names() == []
