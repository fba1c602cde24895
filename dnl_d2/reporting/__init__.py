"""What a run leaves to look at: console, pictures, curves, history of commands, W&B."""

import dnl_d2.needs_detectron2  # noqa: F401
