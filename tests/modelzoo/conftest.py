"""Fixtures of the zoo tests."""

from tests.mlflow_stores import empty_store, pytest_configure, tracking_uri

__all__ = ["empty_store", "pytest_configure", "tracking_uri"]
