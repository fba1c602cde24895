"""What a dataset holds, and what is wrong with it, before any GPU hours are spent."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.validation.contact_sheet import draw_contact_sheet
from dnl_d2.validation.findings import Finding
from dnl_d2.validation.inspection import Inspection, inspect_sets
from dnl_d2.validation.labelled_sets import LabelledSet, folder_set, registered_set

__all__ = [
    "Finding",
    "Inspection",
    "LabelledSet",
    "draw_contact_sheet",
    "folder_set",
    "inspect_sets",
    "registered_set",
]
