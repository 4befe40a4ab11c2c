"""Processes that hold a model."""
