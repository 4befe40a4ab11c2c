"""Kernels beside their references in torch and beside the card's limits: a part of the benchmark of a GPU."""
