"""What ``tools/convert_weights.py`` does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from torch import Tensor, nn

from dnl_d2.checkpoint.convert import (
    Comparison,
    compare,
    convert,
    convert_back,
    detect_source,
    fit_backbone,
    get_source,
)
from dnl_d2.checkpoint.describe import openmmlab_meta
from dnl_d2.checkpoint.describe.architecture import (
    expected_parameters,
    infer_settings,
    title,
)
from dnl_d2.checkpoint.describe.words import group_dropped, shorten
from dnl_d2.checkpoint.describe.yaml_file import check_config_path, write_yaml
from dnl_d2.checkpoint.detectron2_zoo import local_weights
from dnl_d2.checkpoint.input_format import published_format
from dnl_d2.checkpoint.keymap import Converted
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.checkpoint.writing import check_output, write_weights
from dnl_d2.errors import UsageError, shortened
from dnl_d2.modeling.from_config import build_from_config

# Code bases that weights can go back to.
BACK = ("mmseg",)


def convert_file(
    input: str,
    output: str,
    *,
    source: str | None = None,
    config_file: str | None = None,
    opts: Sequence[str] = (),
    to: str | None = None,
    write_config: str | None = None,
    trust_pickle: bool = False,
    ignore_unexpected: bool = False,
    verbose: bool = False,
) -> str:
    """Reads, translates, checks against a model and writes a weights file.

    Args:
        input, output: the files; the input may be an address or a published file's name, the
            output is written whole or not at all.
        source: name or family of the code base that wrote the input; None to tell from its keys.
        config_file, opts: the model to check against; by default the one that names and shapes
            of the weights describe.
        to: a code base of ``BACK`` whose names the output gets; None for ours.
        write_config: also write the YAML keys of the described model there.
        trust_pickle: see :func:`dnl_d2.checkpoint.read_weights`.
        ignore_unexpected: leave out parameters that the model has no place for.
        verbose: list every renamed key.

    Returns:
        The report: matched, renamed, dropped, missing and unexpected keys.

    Raises:
        UsageError: the input cannot be read or is of another model, or lacks what is needed.
    """
    check_output(output, input)
    if opts and not config_file:
        raise UsageError("--opts are overrides of --config-file, which is not given")
    if write_config:
        check_config_path(write_config)
    path = local_weights(input, "IN") if "://" in input else input
    weights = read_weights(path, trust_pickle=trust_pickle)
    try:
        found = detect_source(weights.state, source)
        converted = convert(weights.state, found)
        fed = published_format(weights.rest, found)
        settings = found.settings_of(weights.rest, infer_settings(converted.state))
        model: Mapping[str, Tensor] = {} if config_file else expected_parameters(settings)
    except UsageError as error:
        raise UsageError(f"{input}: {shortened(error)}") from error
    pooled = settings.get("MODEL.RESNETS.SHORTCUT") == "avg_pool"
    if config_file:
        model, pooled = _build(config_file, opts)
    state = fit_backbone(converted.state, model)
    compared = compare(state, model)
    compared.unexpected = [*converted.unexpected, *compared.unexpected]
    lines = [f"{input}: {found.title}, {title(settings)}", *_report(converted, compared, verbose)]
    problems = _problems(compared, ignore_unexpected)
    if problems:
        print("\n".join(lines))
        against = f"the model of {config_file}" if config_file else f"a whole {title(settings)}"
        raise UsageError(
            f"{input} does not hold {against}; parameters: {'; '.join(problems)}. Nothing written"
        )
    state = {key: state[key] for key in compared.matched}
    if to is None:
        write_weights(output, _content(state, weights.rest, fed))
    else:
        back = _renamed_back(input, state, get_source(f"{to}-v1d" if pooled else to))
        write_weights(output, _content_back(back, weights.rest), weights="state_dict")
    if write_config:
        lines += write_yaml(write_config, settings, found, fed)
    return "\n".join([*lines, f"written: {output}"])


def _build(config_file: str, opts: Sequence[str]) -> tuple[Mapping[str, Tensor], bool]:
    """A model's parameters, without memory for them, and whether its shortcuts pool (ResNet-D)."""
    model = build_from_config(config_file, opts, device="meta")
    # No parameter tells.
    backbone = model.get_submodule("backbone")
    pooled = any(isinstance(part, nn.AvgPool2d) for part in backbone.modules())
    return model.state_dict(), pooled


def _report(converted: Converted, compared: Comparison, verbose: bool) -> list[str]:
    renamed = converted.renamed
    wanted = len(compared.matched) + len(compared.missing) + len(compared.mismatched)
    lines = [f"matched    {len(compared.matched)} of {wanted}", f"renamed    {len(renamed)}"]
    lines += [f"    {old} -> {new}" for old, new in renamed.items() if verbose]
    lines.append(f"dropped    {len(converted.dropped)}")
    lines += [f"    {why}: {', '.join(keys)}" for why, keys in group_dropped(converted).items()]
    lines.append(f"missing    {len(compared.missing)}")
    lines += [f"    {key}" for key in compared.missing]
    lines.append(f"unexpected {len(compared.unexpected)}")
    lines += [f"    {key}" for key in compared.unexpected]
    return lines


def _problems(compared: Comparison, ignore_unexpected: bool) -> list[str]:
    """Why the parameters are not those of the model, in words."""
    problems = []
    if compared.missing:
        problems.append(f"{len(compared.missing)} missing ({shorten(compared.missing)})")
    if compared.mismatched:
        key, (own, model) = next(iter(compared.mismatched.items()))
        problems.append(
            f"{len(compared.mismatched)} of another shape ({key}: {list(own)} in the file, "
            f"{list(model)} in the model)"
        )
    if compared.unexpected and not ignore_unexpected:
        problems.append(
            f"{len(compared.unexpected)} that the model has no place for "
            f"({shorten(compared.unexpected)}; --ignore-unexpected leaves them out)"
        )
    return problems


def _renamed_back(path: str, state: Mapping[str, Tensor], target: Source) -> dict[str, Tensor]:
    """The parameters under the names of another code base."""
    back = convert_back(state, target)
    if back.unexpected:
        raise UsageError(
            f"{path}: {target.name.partition('-')[0]} has no names for {len(back.unexpected)} "
            f"parameters, such as {back.unexpected[0]!r}"
        )
    return back.state


def _content(state: Mapping[str, Tensor], rest: Mapping, fed: InputFormat | None) -> dict:
    """What a converted file holds: weights, and how images and classes are meant."""
    content = {"model": dict(state)}
    if fed is not None:
        content["input_format"] = asdict(fed)
    names = openmmlab_meta.class_names(rest)
    return content | ({"classes": names} if names else {})


def _content_back(state: Mapping[str, Tensor], rest: Mapping) -> dict:
    """What a file of mmsegmentation holds."""
    meta = {"CLASSES": openmmlab_meta.class_names(rest), "PALETTE": openmmlab_meta.palette(rest)}
    return {"state_dict": dict(state), "meta": {k: v for k, v in meta.items() if v}}
