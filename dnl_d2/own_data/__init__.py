"""Configs and splits to start from on data of one's own."""

import dnl_d2.needs_detectron2  # noqa: F401
