"""What figures of the engine are called. Apart, so that who only names them need not load torch."""

from __future__ import annotations

TOKENS_PER_S = "output tokens/s"
DECODE_STEP = "decode step, ms"
