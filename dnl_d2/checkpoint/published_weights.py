"""Published weights by name, such as ``mmseg://dnl_r50-d8_512x1024_40k_cityscapes``."""

import contextlib
import difflib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import yaml
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from dnl_d2.checkpoint.download import fetch
from dnl_d2.errors import UsageError

# In place of https://HOST of every address: a copy of the public servers, with their folders, by
# its address or as a folder.
MIRROR = "DNL_D2_WEIGHTS_MIRROR"
_TABLE = Path(__file__).with_suffix(".yaml")
# Whose files the recipes are written after. MMDetection trained the same networks with anchors and
# pooling that differ from the authors', which the COCO recipes have.
_OF_RECIPES = ("mmseg", "paddleseg")


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights.

    Args:
        scheme: whose file it is: ``mmseg``, ``mmdet`` or ``paddleseg``.
        recipe: the recipe whose network it fills, see :func:`dnl_d2.model_zoo.list`.
        address: where it is published.
        also: its name in newer versions, without scheme; may be empty.
    """

    scheme: str
    recipe: str
    address: str
    also: str = ""

    @property
    def folder(self) -> str:
        """The last folder of its address, by which it is known."""
        return self.address.split("/")[-2]

    @property
    def name(self) -> str:
        """What it is called here."""
        return f"{self.scheme}://{self.folder}"

    @property
    def sha256(self) -> str:
        """The first digits of its hash, where its name tells them, or empty."""
        found = re.search(r"-([0-9a-f]{8,})\.pth$", self.address)
        return found[1] if found else ""

    @property
    def of_recipe(self) -> bool:
        """Whether it was trained with the recipe, not only with a network of the same shapes."""
        return self.scheme in _OF_RECIPES

    @property
    def url(self) -> str:
        """Where it is fetched from: the address, or its place in a mirror."""
        mirror = os.environ.get(MIRROR, "").rstrip("/")
        if not mirror:
            return self.address
        if "://" not in mirror:
            mirror = Path(mirror).expanduser().absolute().as_uri()
        return mirror + urlsplit(self.address).path

    def fetch(self) -> str:
        """Its path in the cache, where Detectron2 keeps what it fetches; it is fetched once.

        Raises:
            UsageError: see :func:`dnl_d2.checkpoint.download.fetch`.
        """
        path = os.path.join(get_cache_dir(), urlsplit(self.address).path.lstrip("/"))
        return fetch(self.url, path, sha256=self.sha256)


@functools.cache
def published_files() -> tuple[PublishedFile, ...]:
    """Every published file of a recipe's network."""
    table = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return tuple(
        PublishedFile(scheme, row["config"], row["address"], row.get("also", ""))
        for scheme, rows in table.items()
        for row in rows
    )


def is_published_name(name: str) -> bool:
    """Whether a name has a scheme of published files; see :func:`find_published`."""
    return name.partition("://")[0].lower() in {file.scheme for file in published_files()}


def find_published(name: str) -> PublishedFile:
    """The file of a name, such as ``mmseg://dnl_r50-d8_512x1024_40k_cityscapes``.

    Raises:
        UsageError: there is none of that name; the message names those that are close to it.
    """
    known = {spelling: file for file in published_files() for spelling in _spellings(file)}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.7)
    names = dict.fromkeys(known[spelling].name for spelling in close)
    hint = f"did you mean {' or '.join(names)}?" if names else "configs/README.md lists them"
    raise UsageError(f"there are no published weights {name!r}; {hint}")


def of_recipe(recipe: str) -> PublishedFile | None:
    """The file with a recipe's network, or None where none can be fetched.

    Args:
        recipe: its whole name, as :func:`dnl_d2.model_zoo.list` has it.
    """
    return next((file for file in published_files() if file.recipe == recipe), None)


def _spellings(file: PublishedFile) -> list[str]:
    """The names of a file: of its folder, of itself, and in newer versions."""
    own = os.path.splitext(os.path.basename(file.address))[0]
    names = [file.folder, *([own, f"{own}.pth"] if file.sha256 else []), file.also]
    return [f"{file.scheme}://{name}" for name in names if name]  # PaddleSeg's are all "model"


class PublishedWeightsHandler(PathHandler):
    """Makes the names of a scheme paths of Detectron2's ``PathManager``.

    Args:
        scheme: such as ``mmseg``.
    """

    def __init__(self, scheme: str):
        super().__init__()
        self.scheme = scheme

    def _get_supported_prefixes(self) -> list[str]:
        return [f"{self.scheme}://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return find_published(path).fetch()

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO:
        return open(self._get_local_path(path), mode, buffering)


for _scheme in dict.fromkeys(file.scheme for file in published_files()):
    with contextlib.suppress(KeyError):  # someone else has one of this scheme: it stays
        PathManager.register_handler(PublishedWeightsHandler(_scheme), allow_override=False)
