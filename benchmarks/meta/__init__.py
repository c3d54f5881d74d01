"""Benchmarks of networks that read, edit and write networks."""
