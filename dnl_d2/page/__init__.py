"""An interactive page: a picture, what models say of it, and where a point of it attends."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.errors import UsageError

try:
    import gradio  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    raise UsageError(
        "the page needs gradio: pip install gradio, or the extra dnl_d2[page]"
    ) from error

from dnl_d2.page.answers import Answers
from dnl_d2.page.layout import build_page
from dnl_d2.page.serving import is_local, require_free, serve

__all__ = ["Answers", "build_page", "is_local", "require_free", "serve"]
