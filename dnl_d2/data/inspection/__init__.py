"""What a dataset holds, and what is wrong with it, before any GPU hours are spent."""

from dnl_d2.data.inspection.findings import Finding
from dnl_d2.data.inspection.run import Inspection, inspect_sets
from dnl_d2.data.inspection.sheet import draw_contact_sheet
from dnl_d2.data.inspection.sources import LabelledSet, folder_set, registered_set

__all__ = [
    "Finding",
    "Inspection",
    "LabelledSet",
    "draw_contact_sheet",
    "folder_set",
    "inspect_sets",
    "registered_set",
]
