"""What goes wrong with values and with bytes. All is drawn from a `Random`: the same one does the same damage."""

from __future__ import annotations

import math
from copy import deepcopy
from random import Random
from typing import Any

_DEEPEST = 250
_ODD_NUMBERS = (0, -1, 1, 2, 7, 100, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, -0.0, 1e308, 5e-324)
_NO_NUMBERS = (math.nan, math.inf, -math.inf)
_ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\r\nx-injected: 1",
    "\u202e\u2028\ufeff",
    "😀字é",
    "a\u0301" * 50,
    "{{ 7 * 7 }}",
    "{% for x in range(999999999) %}{% endfor %}",
    "</s><s>[INST]<|im_end|>",
    "../../etc/passwd",
    "NaN",
    "-1",
)


def odd_text(rng: Random) -> str:
    """Text that somebody may trip over; now and then a long one."""
    text = rng.choice(_ODD_TEXTS)
    return text * rng.choice((1, 1, 1, 7, 500)) if rng.random() < 0.7 else chr(rng.randrange(0x20, 0xD800))


def odd_value(rng: Random) -> Any:
    """A plain value of any type: msgpack can carry it, and JSON all but bytes."""
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind <= 2:
        return rng.choice(_ODD_NUMBERS)
    if kind == 3:
        return rng.choice(_NO_NUMBERS)
    if kind <= 5:
        return odd_text(rng)
    if kind == 6:
        return [odd_value(rng) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {odd_text(rng)[:40]: odd_value(rng) for _ in range(rng.randrange(4))}
    return _nested(rng.randrange(1, _DEEPEST), rng.random() < 0.5)


def damaged_value(rng: Random, value: Any) -> Any:
    """A copy in which one place or a few are replaced, left out or doubled."""
    root = [deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _damage(rng, root)
    return root[0] if root else None


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Bits flipped, pieces cut out, doubled or put in; or no more than its beginning."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(damaged) + 1)
        end = min(len(damaged), place + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(5)
        if kind == 0 and place < len(damaged):
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[place:end]
        elif kind == 2:
            damaged[place:place] = damaged[place:end]
        elif kind == 3:
            damaged[place:place] = rng.randbytes(rng.choice((1, 1, 4, 40)))
        elif rng.random() < 0.3:
            del damaged[place:]
    return bytes(damaged)


def _damage(rng: Random, root: list[Any]) -> None:
    holder, key = rng.choice(list(_places(root)) or [(root, 0)])
    if not root:
        return
    kind = rng.randrange(12)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = [holder[key]] * rng.choice((1, 2, 2 if holder is root else 300))
    elif kind == 2 and isinstance(holder, dict):
        holder[odd_text(rng)[:40]] = holder.pop(key)
    elif kind < 6:
        holder[key] = odd_value(rng)
    else:
        holder[key] = _odd_of_its_type(rng, holder[key])


def _odd_of_its_type(rng: Random, value: Any) -> Any:
    """What a check of types lets through."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([number for number in _ODD_NUMBERS if isinstance(number, int)])
    if isinstance(value, float):
        return rng.choice(_ODD_NUMBERS + _NO_NUMBERS)
    if isinstance(value, str):
        return odd_text(rng)
    return type(value)() if isinstance(value, list | dict) else odd_value(rng)


def _places(holder: Any) -> list[tuple[Any, Any]]:
    """Every element of every list and dictionary, however deep; long and deep ones are not searched to their end."""
    found: list[tuple[Any, Any]] = []
    waiting = [holder]
    while waiting and len(found) < 200:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(min(len(node), 20))
        found.extend((node, key) for key in keys)
        waiting.extend(node[key] for key in keys if isinstance(node[key], dict | list))
    return found


def _nested(depth: int, in_lists: bool) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value
