"""Weights by name: Detectron2's zoo, the ImageNet files it starts from, published files."""

import ast
import difflib
import functools
import logging
import os
import re

from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import PathManager

from dnl_d2.checkpoint.published_weights import find_published, is_published_name, published_files
from dnl_d2.config.loading import zoo_folder
from dnl_d2.errors import UsageError

_log = logging.getLogger(__name__)

# What Detectron2's own configs start from, below detectron2://. Not every name that one would
# expect is there: torchvision/R-101 is not.
_STARTS = (
    "ImageNetPretrained/MSRA/R-50",
    "ImageNetPretrained/MSRA/R-101",
    "ImageNetPretrained/torchvision/R-50",
    "ImageNetPretrained/FAIR/X-101-32x8d",
    "DeepLab/R-52",
    "DeepLab/R-103",
)
_SCHEDULE = r"_\d+(x|ep_LSJ)$"


def resolve_weights(name: str, key: str = "MODEL.WEIGHTS") -> str:
    """The file or address that ``name`` stands for.

    A name is that of a zoo config, such as
    ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml``, or of an ImageNet file, such as
    ``ImageNetPretrained/MSRA/R-50.pkl``. The ending may be left out, and so may folders and the
    schedule (``_3x``) as long as only one model remains. Names of public files have a scheme, as in
    ``mmseg://dnl_r50-d8_512x1024_40k_cityscapes``.

    Args:
        name: a local file (also from ``~``), which goes before a name; an address; a name; or
            empty for none.
        key: the config key it comes from, for the message.

    Returns:
        The file or address itself, or an address that Detectron2 can fetch.

    Raises:
        UsageError: neither a file nor a name, or a name of several models.
    """
    if is_published_name(name):
        try:
            return find_published(name).name
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from error
    name = os.path.expanduser(name)
    config = name.endswith((".yaml", ".py"))  # stands for its weights, also where the file is here
    if not name or "://" in name or (os.path.isfile(name) and not config):
        return name
    found = _names(name)
    if len(found) > 1:
        raise UsageError(
            f"{key}: there is no file {name!r}, and in Detectron2's model zoo it may be any of "
            f"{', '.join(found)}: write one of these"
        )
    if not found and os.path.isdir(name):
        inside = sorted(file for file in os.listdir(name) if file.endswith((".pth", ".pkl")))
        such = f", such as {os.path.join(name, inside[0])}" if inside else ""
        raise UsageError(f"{key}: {name!r} is a folder: name a weights file{such}")
    if not found:
        raise UsageError(f"{key}: there is no weights file {name!r}{_hint(name)}")
    _log.info(f"{key}: {name} of Detectron2's model zoo, {addresses()[found[0]]}")
    return addresses()[found[0]]


def local_weights(name: str, key: str) -> str:
    """The local file of a name, an address or a file; what is elsewhere is fetched once.

    Args:
        name, key: see :func:`resolve_weights`.

    Raises:
        UsageError: see there; or the file cannot be fetched.
    """
    path = resolve_weights(name, key)
    try:
        return PathManager.get_local_path(path)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
    except Exception as error:  # as each handler likes
        raise cannot_be_fetched(path, key, error) from error


def cannot_be_fetched(path: str, key: str, error: Exception) -> UsageError:
    """What to do where an address does not answer."""
    reason = " ".join(str(error).split())[:200]
    return UsageError(
        f"{key}: {path!r} cannot be fetched ({reason}): download it elsewhere and set {key} to the "
        "file"
    )


def resolve_model(name: str, key: str) -> str:
    """The full name of a trained model; see :func:`resolve_weights` for what may be left out.

    Raises:
        UsageError: there is none of that name, or there are several.
    """
    found = [full for full in _names(name) if "/model_" in addresses()[full]]
    if len(found) > 1:
        raise UsageError(f"{key}: {name!r} may be any of {', '.join(found)}: write one of these")
    if not found:
        raise UsageError(f"{key}: Detectron2's model zoo has no trained {name!r}{_hint(name)}")
    return found[0]


def _names(name: str) -> list[str]:
    """What a name, perhaps with an ending, may stand for."""
    stem = _stem(name)
    return [stem] if stem in addresses() else _spellings().get(stem, [])


def _stem(name: str) -> str:
    return re.sub(r"\.(yaml|py|pkl)$", "", name)


def _hint(name: str) -> str:
    stem = os.path.splitext(os.path.basename(name))[0]
    published = [file.name for file in published_files() if stem in (file.folder, file.also)]
    if stem and published:
        return f"; the published file is {published[0]}"
    close = _close_to(_stem(name))
    return f"; Detectron2's model zoo has {', '.join(close)}" if close else ""


@functools.cache
def addresses() -> dict[str, str]:
    """Every name, without its ending, and where Detectron2 finds the file."""
    prefix = "ImageNetPretrained/"
    caffe2 = {prefix + n: f"catalog://{prefix}{n}" for n in ModelCatalog.C2_IMAGENET_MODELS}
    starts = {name: f"detectron2://{name}.pkl" for name in _STARTS}
    trained = {name: f"detectron2://{name}/{file}" for name, file in _trained_models().items()}
    return {**caffe2, **starts, **trained}


def config_path(name: str) -> str:
    """The config file of a model, below the zoo's folder of configs."""
    yaml = os.path.isfile(os.path.join(zoo_folder(), "configs", f"{name}.yaml"))
    return f"{name}.yaml" if yaml else f"{name}.py"


def _trained_models() -> dict[str, str]:
    """Config names and files of Detectron2's own table.

    The table is read, not imported: some versions of its module need pkg_resources, which new
    versions of setuptools have no longer.
    """
    with open(os.path.join(zoo_folder(), "model_zoo.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    tables = [
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        and getattr(node.targets[0], "id", "") == "CONFIG_PATH_TO_URL_SUFFIX"
    ]  # fmt: skip
    return ast.literal_eval(tables[0])


@functools.cache
def _spellings() -> dict[str, list[str]]:
    """Names without their schedule or first folders, and which names each may stand for."""
    spellings: dict[str, list[str]] = {}
    for name in addresses():
        for full in dict.fromkeys([name, re.sub(_SCHEDULE, "", name)]):
            parts = full.split("/")
            for start in range(len(parts)):
                spellings.setdefault("/".join(parts[start:]), []).append(name)
    return spellings


def _close_to(stem: str) -> list[str]:
    """The names that may be meant, best first."""
    spellings = {spelling.lower(): names for spelling, names in _spellings().items()}
    close = difflib.get_close_matches(stem.lower(), spellings, n=3, cutoff=0.85)
    return list(dict.fromkeys(name for c in close for name in spellings[c]))[:4]
