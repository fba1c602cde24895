"""Names of recipes and the config files they stand for."""

import difflib
import fnmatch
import functools
import os
from pathlib import Path

from dnl_d2.checkpoint.published_weights import of_recipe
from dnl_d2.config.loading import zoo_folder
from dnl_d2.errors import UsageError

_ENDINGS = (".yaml", ".py")


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes, such as ``cityscapes/dnl_r50-d8_40k_cityscapes-512x1024``.

    Args:
        pattern: which of them, as in a shell: ``coco/*_dnl_*``, or without the folder ``dnl_*``.
    """
    return sorted(
        name
        for name in _recipes()
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.rpartition("/")[2], pattern)
    )


def get_config_file(name: str) -> str:
    """Path of a recipe's config file.

    Args:
        name: as in :func:`list_recipes`; the folder may be left out where one recipe remains.
            With ``.py`` the LazyConfig file, with ``.yaml`` the YAML file, with neither YAML
            where there is one.

    Raises:
        UsageError: no recipe of this name, several, or none of this kind.
    """
    stem, ending = _split(name)
    files = _recipes()[_full_name(stem)]
    if ending and ending not in files:
        raise UsageError(f"model zoo: there is no {name}, but {stem}{next(iter(files))}")
    return str(files[ending] if ending else next(iter(files.values())))


def find_recipe(config: str) -> str | None:
    """The recipe that a name or the path of a config file stands for, or None."""
    stem, ending = os.path.splitext(os.path.realpath(config))
    if ending in _ENDINGS and os.path.isfile(config):
        name = os.path.relpath(stem, os.path.realpath(_configs()))
        return name if name in _recipes() else None
    try:
        return _full_name(_split(config)[0])
    except UsageError:
        return None


def get_checkpoint_url(name: str) -> str:
    """The name of a recipe's published weights, such as ``mmseg://dnl_r50-d8_512x1024_40k_cityscapes``.

    Whatever takes weights takes it; the file is fetched once, see ``docs/weights.md``.

    Args:
        name: see :func:`get_config_file`.

    Raises:
        UsageError: see there; or no file of this recipe is published.
    """
    recipe = _full_name(_split(name)[0])
    file = of_recipe(recipe)
    if file is None:
        raise UsageError(
            f"model zoo: no weights of {recipe} are published: configs/README.md has the rows that "
            "have some"
        )
    if not file.of_recipe:
        raise UsageError(
            f"model zoo: the authors' weights of {recipe} cannot be fetched; {file.name} has the "
            "same network, trained with another recipe: give it as weights, and a warning names "
            "the keys to set"
        )
    return file.name


def _split(name: str) -> tuple[str, str]:
    """A name without its ending, and the ending."""
    if not isinstance(name, str):
        raise UsageError(f"model zoo: {name!r} is no name of a recipe: model_zoo.list() names them")
    ending = next((end for end in _ENDINGS if name.endswith(end)), "")
    return name.removesuffix(ending), ending


def _full_name(stem: str) -> str:
    """The recipe that ``stem``, with or without its folder, names."""
    recipes = _recipes()
    found = [name for name in recipes if stem in (name, name.rpartition("/")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"model zoo: {stem!r} may be {' or '.join(found)}: write one of these")
    if _is_of_detectron2(stem):
        raise UsageError(
            f"model zoo: {stem!r} is a model of Detectron2's own zoo: "
            "detectron2.model_zoo.get_config and get take it"
        )
    spellings = {name.rpartition("/")[2]: name for name in recipes} | {n: n for n in recipes}
    close = difflib.get_close_matches(stem.lower(), spellings, n=1)
    hint = f"did you mean {spellings[close[0]]!r}?" if close else "model_zoo.list() names them all"
    raise UsageError(f"model zoo: there is no recipe {stem!r}; {hint}")


@functools.cache
def _recipes() -> dict[str, dict[str, Path]]:
    """Every recipe's files by their endings, YAML first."""
    folder = _configs()
    recipes: dict[str, dict[str, Path]] = {}
    for ending in _ENDINGS:
        for file in sorted(folder.glob(f"*/*{ending}")):
            if file.parent.name != "common":  # parts of recipes
                name = f"{file.parent.name}/{file.stem}"
                recipes.setdefault(name, {})[ending] = file
    return recipes


def _configs() -> Path:
    """The folder of configs: inside an installed package, beside the library in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def _is_of_detectron2(stem: str) -> bool:
    """Whether Detectron2's model zoo has a config of this name, with or without its folder."""
    folder = Path(zoo_folder(), "configs")
    files = (file for file in folder.rglob("*") if file.suffix in _ENDINGS)
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
    return any(
        stem in (name, name.rpartition("/")[2]) for name in names if not name.startswith("common/")
    )
