"""Recipes for model classes of the `transformers` library: class name, inputs, settings of the configuration."""
