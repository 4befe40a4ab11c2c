"""What the limits of API keys mean for requests: who is let in, what it costs them, and what they are told of it."""

from __future__ import annotations

import math
from asyncio import Future
from collections.abc import Iterator

from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.request_observer import ObservedRequest, SilentObserver
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.balances import Balances, Level, Meter
from vfastml.entrypoints.keys.key_ring import KeyRing
from vfastml.errors import AuthenticationError, RateLimitError

_HEADERS = {
    meter: [f"x-ratelimit-{what}-{meter.name.lower()}".encode() for what in ("limit", "remaining", "reset")]
    for meter in Meter
}
LIMIT_HEADERS = tuple(name.decode() for names in _HEADERS.values() for name in names)
_ONE_REQUEST = 1 - 1e-9
"""Who comes when it was told to is not sent away by a rounding error."""
_ANY_TOKEN = 1e-9
_TOKENS_AT_ONCE = 16
"""That are charged while a text is under way: each look at the memory of several processes costs more than all else
that is done for a token."""


def revoked() -> AuthenticationError:
    """What a caller hears whose key has been taken away."""
    return AuthenticationError("The API key has been revoked.")


class KeyLimits(SilentObserver):
    """Holds keys to their rates, and says how many requests each may have open; `max_open` is for keys that do not say,
    and 0 is no bound. As an observer of requests it charges tokens: those of a prompt when it is accepted, generated
    ones as they come, a few at a time, and in the end what was used. So a balance can fall below zero, which later
    requests wait for.
    """

    def __init__(self, ring: KeyRing, balances: Balances, max_open: int) -> None:
        self._ring = ring
        self._balances = balances
        self._max_open = max_open
        self._charged: dict[ObservedRequest, int] = {}

    def max_open(self, tenant: Tenant) -> int:
        """Requests that it may have open at a time; 0: no bound."""
        key = self._ring.key_of(tenant)
        return self._max_open if key is None or key.max_open is None else key.max_open

    def let_in(self, tenant: Tenant, *, uses_tokens: bool) -> None:
        """Count one more request. Raises RateLimitError, which says when to come again, and counts nothing."""
        key = self._ring.key_of(tenant)
        if key is None:
            return
        if uses_tokens and (left := self._level(key, tenant, Meter.TOKENS)) and left.balance < _ANY_TOKEN:
            raise _too_fast(left, "tokens", left.seconds_until(_ANY_TOKEN))
        if key.requests_per_minute is not None:
            left = self._balances.take(tenant.secret, Meter.REQUESTS, key.requests_per_minute, 1, _ONE_REQUEST)
            if left.balance < _ONE_REQUEST:
                raise _too_fast(left, "requests", left.seconds_until(1))

    def levels(self, tenant: Tenant) -> dict[Meter, Level]:
        """What is left to it, where it has limits."""
        key = self._ring.key_of(tenant)
        found = {meter: self._level(key, tenant, meter) for meter in Meter} if key else {}
        return {meter: level for meter, level in found.items() if level is not None}

    def headers(self, tenant: Tenant) -> Iterator[tuple[bytes, bytes]]:
        """OpenAI's, for an answer."""
        for meter, level in self.levels(tenant).items():
            limit, remaining, reset = _HEADERS[meter]
            yield limit, str(level.per_minute).encode()
            yield remaining, str(max(0, math.floor(level.balance))).encode()
            yield reset, written_duration(level.seconds_until_full).encode()

    # As a RequestObserver.

    def on_dispatched(self, observed: ObservedRequest) -> None:
        if observed.tenant is not None and self._ring.key_of(observed.tenant) is None:
            raise revoked()  # while its body came

    def on_accepted(self, observed: ObservedRequest) -> None:
        self._charge(observed, observed.num_prompt_tokens + observed.num_generated_tokens)

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        total = observed.num_prompt_tokens + observed.num_generated_tokens
        if total - self._charged.get(observed, 0) >= _TOKENS_AT_ONCE:
            self._charge(observed, total)

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        usage = observed.usage_so_far
        self._charge(observed, usage.prompt_tokens + usage.completion_tokens)
        self._charged.pop(observed, None)
        return None

    def _charge(self, observed: ObservedRequest, total: int) -> None:
        """So that the request has cost so much in all."""
        tenant = observed.tenant
        key = None if tenant is None else self._ring.key_of(tenant)
        if tenant is None or key is None or key.tokens_per_minute is None:
            return
        due = total - self._charged.get(observed, 0)
        if due:
            self._balances.take(tenant.secret, Meter.TOKENS, key.tokens_per_minute, due)
            self._charged[observed] = total

    def _level(self, key: ApiKey, tenant: Tenant, meter: Meter) -> Level | None:
        per_minute = key.requests_per_minute if meter is Meter.REQUESTS else key.tokens_per_minute
        return None if per_minute is None else self._balances.level(tenant.secret, meter, per_minute)


def written_duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1.2s`, `6m0s`. Rounded up."""
    millis = math.ceil(round(seconds * 1000, 3))
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    written = f"{millis / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{written}"
    return f"{minutes}m{written}" if minutes else written


def _too_fast(level: Level, what: str, wait_s: float) -> RateLimitError:
    return RateLimitError(
        f"This API key may use {level.per_minute} {what} in a minute: come again in {wait_s:.1f} s.",
        retry_after_s=wait_s,
    )
