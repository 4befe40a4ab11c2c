"""Continuous batching over Hugging Face models: a library of `add`, `cancel` and `step`. No sockets, no HTTP."""

import os

# Read by OpenMP once, when torch is loaded, which every module below does later. Its threads otherwise spin at each
# barrier, and where a gateway or a client shares the cores, a step of 30 ms then takes a second.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
