"""Datasets that are drawn: small tasks in which a local window cannot know the answer."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.synthetic.instance_scenes import generate_instances
from dnl_d2.synthetic.labelled_scenes import generate_dataset

__all__ = ["generate_dataset", "generate_instances"]
