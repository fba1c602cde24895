"""Shared by the tests of checks."""

from tests.data.conftest import catalogs  # noqa: F401
