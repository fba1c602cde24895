"""Writing the YAML config of the model that some weights are of."""

import yaml

from dnl_d2.checkpoint.describe.architecture import nested, title
from dnl_d2.checkpoint.describe.parameters import Settings
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.errors import UsageError
from dnl_d2.files import check_folder, write_text

_DETECTION_KEYS = (
    "MODEL.ANCHOR_GENERATOR",
    "MODEL.RPN.IN_FEATURES",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE",
)


def check_config_path(path: str) -> None:
    """Raises :class:`UsageError` if no config can be written there."""
    if not path.endswith((".yaml", ".yml")):  # nor can it then be the input or the output
        raise UsageError(f"{path}: the name of --write-config ends in .yaml")
    check_folder(path)


def write_yaml(path: str, settings: Settings, source: Source, fed: InputFormat | None) -> list[str]:
    """Writes the YAML config of the model that some weights are of.

    Args:
        path: the file.
        settings: YAML keys of the model.
        source: the code base of the weights.
        fed: how images reach the model; None if nobody knows.

    Returns:
        Lines for the report.
    """
    untold = _untold(settings, source, fed)
    if fed is not None:
        settings = settings | {
            "MODEL.PIXEL_MEAN": list(fed.mean),
            "MODEL.PIXEL_STD": list(fed.std),
            "INPUT.FORMAT": fed.channel_order,
        }
    comments = [f"{title(settings)}, told from the names and shapes of its weights.", untold]
    head = "".join(f"# {comment}\n" for comment in comments if comment)
    text = yaml.dump(nested(settings), Dumper=PlainDumper, sort_keys=False)
    write_text(path, head + text)
    return [*([f"{path}: {untold}"] if untold else []), f"written: {path}"]


def _untold(settings: Settings, found: Source, fed: InputFormat | None) -> str:
    """What the written config may have wrong, in a line; empty for nothing."""
    what, keys = [], []
    if fed is None:
        what += ["input colours"]
        keys += ["INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"]
    if found.input_format is None:  # the models of such a code base differ in more
        if "MODEL.ROI_HEADS.NAME" in settings:
            what += ["anchors", "levels", "pooling"]
            keys += _DETECTION_KEYS
        elif "MODEL.SEM_SEG_HEAD.NAME" in settings:
            what += ["dilation", "corners of the resize"]
            keys += ["MODEL.RESNETS.OUTPUT_STRIDE", "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS"]
    if not keys:
        return ""
    *first, last = what
    named = f"{', '.join(first)} and {last}" if first else last
    return (
        f"{named} cannot be told from the weights: set {', '.join(keys)} as in the config it was "
        "trained with"
    )


class PlainDumper(yaml.SafeDumper):
    """Writes a list that is used twice twice, without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True
