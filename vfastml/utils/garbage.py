"""The garbage collector in a process that has loaded all it needs, and from now on serves."""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 10_000
"""Between two looks at the young ones, 700 by default. Requests and steps make many objects and free nearly all of them
by themselves: looking seldom finds as much garbage in fewer looks."""


def settle_garbage_collection() -> None:
    """Call it once, when everything is loaded. What is there now, modules and models, stays until the end: it is put
    aside, so that no full collection walks over it, which takes a tenth of a second and more with a model's libraries,
    while tokens wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
