"""Loading a YAML or LazyConfig file with command-line overrides, strictly."""

import difflib
import importlib.util
import inspect
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.utils.registry import locate
from fvcore.common.config import BASE_KEY
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dnl_d2.config.keys import add_dnl_config
from dnl_d2.config.train_defaults import fill_train
from dnl_d2.errors import UsageError, shortened
from dnl_d2.files import require_regular
from dnl_d2.layers import CONTEXT_BLOCKS, block_arguments

_MOST_ENTRIES = 100_000  # of one file; Detectron2's defaults are some 400
_LARGEST = 1 << 18  # bytes of one file: PyYAML reads a MB in half a minute
_LONG_NUMBER = re.compile(rb"(?::[0-5]?[0-9]){50}")  # of base 60, as YAML has them
_MERGE = "tag:yaml.org,2002:merge"  # the key <<, of which all are taken


def load_config_file(path: str, overrides: Sequence[str] = ()) -> CfgNode | DictConfig:
    """Loads a config of either kind.

    Args:
        path: ``.yaml`` or ``.py``.
        overrides: ``KEY value`` pairs for YAML, ``key=value`` for LazyConfig (``+key=value`` adds
            a key on purpose).

    Raises:
        UsageError: no such file, another kind of file, a key that does not exist, a value of the
            wrong type.
    """
    if not path:
        raise UsageError("name a config: --config-file configs/....yaml or configs/....py")
    if not os.path.isfile(path):
        raise UsageError(f"--config-file {path}: no such file")
    if path.endswith((".yaml", ".yml")):
        return _load_yaml(path, list(overrides))
    if path.endswith(".py"):
        return _load_lazy(path, list(overrides))
    raise UsageError(f"--config-file {path}: a config ends in .yaml or .py")


def zoo_config(path: str) -> CfgNode | DictConfig:
    """A config of Detectron2's model zoo, such as ``common/data/coco.py``.

    As ``detectron2.model_zoo.get_config``, which in some versions needs pkg_resources.
    """
    file = os.path.join(zoo_folder(), "configs", path)
    if path.endswith(".py"):
        return LazyConfig.load(file)
    cfg = get_cfg()
    reader = logging.getLogger("fvcore.common.config")
    level = reader.level
    reader.setLevel(logging.ERROR)  # it warns of RetinaNet's, which computes its anchors on reading
    try:
        cfg.merge_from_file(file)
    finally:
        reader.setLevel(level)
    return cfg


def zoo_folder() -> str:
    """The folder of Detectron2's model zoo, which is found and not imported."""
    package = importlib.util.find_spec("detectron2.model_zoo")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("detectron2 has no model_zoo")
    return package.submodule_search_locations[0]


def _load_yaml(path: str, overrides: list[str]) -> CfgNode:
    cfg = get_cfg()
    add_dnl_config(cfg)
    where = path
    try:
        _check_text(path)
        cfg.merge_from_file(path, allow_unsafe=False)
        where = "command line"
        if len(overrides) % 2:
            raise UsageError(f"overrides of a YAML config are KEY value pairs, got {overrides}")
        cfg.merge_from_list(overrides)
    except UsageError:
        raise
    except Exception as error:  # yacs raises KeyError, ValueError, AssertionError, YAMLError, ...
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = " ".join(str(text).split()) or type(error).__name__
        closest, text = _closest(text), shortened(text)
        if where == path and "is not iterable" in text:
            text = "is empty, or has a plain value where keys are expected"
        if "'float'> vs. <class 'int'>" in text:
            text += " (write the number with a point, such as 3.0)"
        if "'tuple'> vs. <class 'str'>" in text:
            text += " (write a list, such as [a, b]; on a command line \"['a', 'b']\")"
        if "tag:yaml.org,2002:python/" in text:
            text += " (code in a config is not run: write the value out)"
        raise UsageError(f"{where}: {text}{closest}") from error
    return cfg


def _check_text(path: str) -> None:
    """Looks at a file and what it starts from, before they are read as a config.

    Raises:
        UsageError: a key is twice in one place, a file is very large, or its aliases stand for
            very much.
        OSError, yaml.YAMLError: a file cannot be read.
    """
    waiting, seen = [path], set[str]()
    while waiting:
        file = waiting.pop()
        if os.path.realpath(file) in seen:
            continue
        root = _composed(file)
        if not seen:
            _require_keys_once(root, path)
        seen.add(os.path.realpath(file))
        if _entries(root, {}) > _MOST_ENTRIES:
            raise UsageError(f"{file}: its aliases (*name) stand for more than a config can hold")
        waiting += _bases(root, os.path.dirname(file))


def _composed(path: str) -> yaml.Node | None:
    require_regular(path)
    with open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UsageError(f"{path}: more than {_LARGEST} bytes, which no config has")
    if _LONG_NUMBER.search(content):
        raise UsageError(f"{path}: a number with very many colons, which would take long to read")
    return yaml.compose(content, yaml.SafeLoader)


def _entries(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many entries there are with each alias written out; endless where one holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = isinstance(node, yaml.MappingNode)
        inside = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_entries(part, known) for part in inside)
    return known[id(node)]


def _bases(root: yaml.Node | None, folder: str) -> list[str]:
    """The local files that a config starts from."""
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    found = [value for key, value in pairs if key.value == BASE_KEY]
    lists = [value.value if isinstance(value, yaml.SequenceNode) else [value] for value in found]
    names = [os.path.expanduser(str(name.value)) for names in lists for name in names]
    paths = [os.path.join(folder, name) for name in names if "://" not in name]
    return [path for path in paths if os.path.exists(path)]


def _require_keys_once(root: yaml.Node | None, path: str) -> None:
    """Of a key that is twice in a mapping YAML's reader takes the last, and loses the first.

    The file's own text is looked at, not that of its ``_BASE_``, which is there to be overridden.
    """
    nodes = [root]
    seen = set()  # an alias may lead back to what it is part of
    for node in nodes:
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            _require_once([key for key, _ in node.value], path)
            nodes += [value for _, value in node.value]


def _require_once(keys: Iterable[yaml.Node], path: str) -> None:
    lines: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise UsageError(
                f"{path}: {key.value} is there twice, in lines {lines[key.value]} and {line}, and "
                "the first would be lost: put both into one"
            )
        lines[key.value] = line


def _closest(text: str) -> str:
    """The keys that may be meant where yacs does not know one."""
    unknown = re.search(r"Non-existent (?:config )?key: (\S+)", text)
    if unknown is None:
        return ""
    cfg = get_cfg()
    add_dnl_config(cfg)
    keys = list(_names(cfg))
    wrong = unknown[1]
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.8)
    name = wrong.rpartition(".")[2]
    close += [key for key in keys if key.rpartition(".")[2] == name and key not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else ""


def _names(cfg: CfgNode, start: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        yield start + name
        if isinstance(value, CfgNode):
            yield from _names(value, f"{start}{name}.")


def _load_lazy(path: str, overrides: list[str]) -> DictConfig:
    try:
        cfg = LazyConfig.load(path)
    except Exception as error:
        raise UsageError(f"{path}: {type(error).__name__}: {shortened(error)}") from error
    fill_train(cfg)
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            hint = "; options come before them" if override.startswith("-") else ""
            raise UsageError(f"overrides of a LazyConfig are key=value, got {override!r}{hint}")
        if not key.startswith(("+", "~")):
            _check_key(cfg, key)
    for override in overrides:
        try:
            cfg = _overridden(cfg, override)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"command line: {override!r} cannot be used: {reason}") from error
    return cfg


def _overridden(cfg: DictConfig, override: str) -> DictConfig:
    """By Hydra's grammar; a value that it cannot read, such as a path with ``=``, is a text."""
    key, _, text = override.partition("=")
    try:
        is_text = OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        is_text = not text.startswith(("[", "{", "'", '"'))  # these are mistakes
    if not is_text:
        return LazyConfig.apply_overrides(cfg, [override])
    OmegaConf.update(cfg, key.lstrip("+"), text, force_add=key.startswith("+"))
    return cfg


def _check_key(cfg: DictConfig, key: str) -> None:
    """A key must exist, or be an argument that the object or block at that place takes."""
    missing = object()
    if OmegaConf.select(cfg, key, default=missing, throw_on_missing=False) is not missing:
        return
    parent_key, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, parent_key) if parent_key else cfg
    if not OmegaConf.is_dict(parent):
        raise UsageError(f"config key {key!r} does not exist: there is no {parent_key!r}")
    known = [str(k) for k in parent if not str(k).startswith("_")]
    known += [k for k in _arguments(parent) if k not in known]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"config key {key!r} does not exist; {hint}known: {', '.join(known)} (+{key}=... adds)"
        )


def _arguments(node: DictConfig) -> list[str]:
    """Arguments of a node's target, those it passes on to its base classes included."""
    if "_target_" in node:
        target = node["_target_"]
        target = locate(target) if isinstance(target, str) else target
        names = []
        for part in inspect.getmro(target) if inspect.isclass(target) else [target]:
            parameters = inspect.signature(part).parameters.values()
            variadic = {p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
            names += [p.name for p in parameters if p.name not in variadic]
            if not variadic:
                break
        return names
    if node.get("name") in CONTEXT_BLOCKS:
        return block_arguments(CONTEXT_BLOCKS.get(node["name"]))
    return []
