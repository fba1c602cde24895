"""Shared by the tests of checks."""

from tests.data.conftest import catalogs, folder  # noqa: F401
from tests.validation.coco_check import check  # noqa: F401
from tests.validation.pictures import make  # noqa: F401
