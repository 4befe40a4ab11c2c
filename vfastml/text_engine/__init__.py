"""Continuous batching over Hugging Face models: a library of `add`, `cancel` and `step`. No sockets, no HTTP."""

import os

# Read by OpenMP once, when torch is loaded, which every module below does later. Its threads otherwise spin at each
# barrier until the last arrives, and where a gateway or a client shares the cores, a step of 40 ms then takes a
# second. A short spin keeps the speed of a quiet machine; none at all costs a third of it.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
