"""Metanetworks and neural architecture search: graphs in, trained and registered models out."""

__version__ = "0.1.0"
