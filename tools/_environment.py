"""Each tool imports this first.

Where a package is missing, one line says how to get it; other packages' deprecations stay unsaid.
"""

import importlib.util
import os
import shlex
import sys
import warnings
from pathlib import Path
from types import TracebackType

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(f"dnl_d2 needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}")
ROOT = Path(__file__).resolve().parents[1]


def command_line(tool: str, *arguments: str) -> str:
    """What to type in the current folder to run a tool, such as ``train_net.py``."""
    return shlex.join([os.path.join(os.path.relpath(ROOT / "tools"), tool), *arguments])


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As ``sys.excepthook``, but for a package that this Python lacks."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if kind is not ModuleNotFoundError or package in ("", "dnl_d2"):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"{os.path.basename(sys.argv[0])}: error: {sys.executable} has no package {package}: run "
        f"the tool with {ROOT}/.venv/bin/python, which `make .venv/.ready` in {ROOT} sets up, or "
        "install into an environment of your own as docs/getting_started.md says",
        file=sys.stderr,
    )


def _hide_deprecations() -> None:
    """Of calls among other packages, which who runs a tool cannot change; -W shows them.

    What dnl_d2, or code of the user's own, does in an outdated way still shows.
    """
    if sys.warnoptions:
        return
    modules = rf"({'|'.join(_OTHERS)})(\.|$)"
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=modules)
    for announced in ("pkg_resources is deprecated", "torch.meshgrid: in an upcoming release"):
        warnings.filterwarnings("ignore", announced, UserWarning)


# Packages whose outdated calls of one another are theirs to mend.
_OTHERS = (
    "cityscapesscripts", "cv2", "detectron2", "faster_coco_eval", "fvcore", "gradio", "iopath",
    "lvis", "matplotlib", "numpy", "omegaconf", "onnx", "onnxruntime", "onnxscript", "PIL",
    "pkg_resources", "pycocotools", "scipy", "tensorboard", "torch", "torchvision", "wandb", "yacs",
)  # fmt: skip
sys.excepthook = _explain
_hide_deprecations()
if importlib.util.find_spec("dnl_d2") is None:  # then the one beside the tools, from any folder
    sys.path.append(str(ROOT))
