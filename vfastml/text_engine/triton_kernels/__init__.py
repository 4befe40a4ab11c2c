"""Kernels of our own for GPUs, in Triton. Each has its reference in torch beside it, and runs in Triton's interpreter
on a CPU. Nothing here is imported before `missing` (availability.py) has said that it can be."""
