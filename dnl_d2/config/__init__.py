"""Config keys and files: defaults, loading, rules for values, batch sizes."""

import dnl_d2.needs_detectron2  # noqa: F401
