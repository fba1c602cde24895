"""Checkpoints of the DNL authors' segmentation repository: DNL, NL, GC and FCN heads."""

from collections.abc import Mapping
from typing import Any

from dnl_d2.checkpoint.keymap import NORM, PARAM, Rule, State, has
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.mmseg import global_context_rules
from dnl_d2.checkpoint.sources.resnet import conv_norm
from dnl_d2.checkpoint.sources.torchcv import (
    INPUT_FORMAT,
    SETTINGS,
    backbone_rules,
    stem_signature,
)
from dnl_d2.errors import UsageError

_HEAD, _AUXILIARY = "sem_seg_head", "sem_seg_head.auxiliary"
_BLOCK = f"{_HEAD}.context_block"

# Names in the repository's configs -> ours, by network. Its code passes over any other name, as
# over "channel" in the network "nonlocalnowd", which then does not whiten.
_WHITENING = {
    "nonlocalbn": {"channel": "channel", "ln_nostd": "layer"},
    "nonlocalnowd": {"in_nostd": "channel", "ln_nostd": "layer"},
}
# Names that its code knows and our block does not: with a division, or by position or batch.
_NO_WHITENING_HERE = {
    "nonlocalbn": {"spatial", "bn", "bn_affine"},
    "nonlocalnowd": {"in", "ln", "fln", "fln_nostd"},
}


def context_block(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The block of a checkpoint, for :func:`dnl_d2.layers.build_context_block`.

    Parameters show neither the temperature nor the whitening, but the file says them.

    Args:
        config: the ``config_dict`` of the file.

    Returns:
        What the repository's code makes of it; None for the network without a block.

    Raises:
        UsageError: our blocks cannot express it.
    """
    network = config["network"]["model_name"]
    if network in ("gcnet", "basenet"):
        return {"name": "gc", "ratio": 1 / 4} if network == "gcnet" else None
    if network not in _WHITENING:
        raise UsageError(f"network {network!r} of the DNL authors is not known here")
    given = config["nonlocal"]
    without_decay = network == "nonlocalnowd"
    if given.get("with_unary", False) or not given.get("with_nl", True):
        raise UsageError("a DNL block without its pairwise term, or with the paired unary term")
    return {
        "name": "dnl",
        "preset": "paper-seg",
        "temperature": 1.0 if without_decay else float(given["temp"]),
        "use_scale": not (without_decay and "nl" in given["nowd"]),
        "whitening": _whitening(network, given["whiten_type"]),
        "unary": bool(given["with_gc"]),
        "sub_sample": bool(given["downsample"]),
        "project": bool(given["use_out"]),
        "norm": "BN" if given["out_bn"] else "",
    }


def _whitening(network: str, given: list[str]) -> str:
    unknown = _NO_WHITENING_HERE[network].intersection(given)
    found = [ours for name, ours in _WHITENING[network].items() if name in given]
    if unknown or len(found) > 1:
        raise UsageError(f"whiten_type {list(given)} of the DNL authors is not known here")
    return found[0] if found else "none"


def disentangled_rules(public: str, ours: str) -> list[Rule]:
    """DNL as both repositories of its authors store it."""
    parts = "query|key|value"
    return [
        Rule(f"{public}.conv_{{part:{parts}}}.{PARAM}", f"{ours}.{{part:{parts}}}.{PARAM}"),
        Rule(f"{public}.conv_mask.{PARAM}", f"{ours}.unary.{PARAM}"),
        Rule(f"{public}.gamma", f"{ours}.gamma"),
    ]


def _rules(state: State) -> list[Rule]:
    # GC and FCN heads are in a module of another name than NL and DNL heads.
    head = "nlm" if has(state, "nlm.{rest:*}", f"{_BLOCK}.query.{{p:*}}") else "gcb"
    return [
        *backbone_rules(state),
        *conv_norm(f"{head}.conva.0", f"{head}.conva.1.0", f"{_HEAD}.convs.0"),
        *_block_rules(state, f"{head}.ctb"),
        *conv_norm(f"{head}.convb.0", f"{head}.convb.1.0", f"{_HEAD}.convs.1"),
        *conv_norm(f"{head}.bottleneck.0", f"{head}.bottleneck.1.0", f"{_HEAD}.fuse"),
        Rule(f"{head}.bottleneck.3.{PARAM}", f"{_HEAD}.predictor.{PARAM}"),
        *conv_norm("dsn.0.conv", "dsn.0.bn_relu.0", f"{_AUXILIARY}.convs.0"),
        Rule(f"dsn.2.{PARAM}", f"{_AUXILIARY}.predictor.{PARAM}"),
    ]


def _block_rules(state: State, public: str) -> list[Rule]:
    projected = has(state, f"{public}.conv_out.weight", f"{_BLOCK}.project.weight")
    return [
        *disentangled_rules(public, _BLOCK),
        Rule(f"{public}.conv_out.weight", f"{_BLOCK}.project.weight"),
        Rule(f"{public}.out_bn.{NORM}", f"{_BLOCK}.{'project.' if projected else ''}norm.{NORM}"),
        *global_context_rules(public, _BLOCK),
    ]


def _told(rest: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    config = rest.get("config_dict")
    block = context_block(config) if isinstance(config, Mapping) else None
    return {f"MODEL.SEM_SEG_HEAD.CONTEXT.{k.upper()}": v for k, v in (block or {}).items()}


SOURCE = Source(
    name="dnl-seg",
    title="the DNL authors' segmentation repository",
    signature=(stem_signature(), "{head:nlm|gcb}.conva.0.weight"),
    rules=_rules,
    input_format=INPUT_FORMAT,
    settings=SETTINGS,
    told=_told,
)
