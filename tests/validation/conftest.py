"""Shared by the tests of checks."""

from tests.data.conftest import catalogs, folder  # noqa: F401
