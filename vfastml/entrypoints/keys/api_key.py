"""One API key as an operator describes it: whose it is, what it opens, and how much of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.quota import PERIODS, Period

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MOST = 10**15
_MOST_WEIGHT = 1000
_MOST_MODELS = 1024
_MAX_NAME_CHARS = 512


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Checked when made: raises ValueError with what is wrong. None as a limit is no bound."""

    name: str
    sha256: str = field(repr=False)
    """Of the key, in 64 hexadecimal digits; the key itself is nowhere."""
    admin: bool = False
    """Whether it opens the admin listener."""
    weight: float = 1.0
    """Of its share of a busy model, beside the shares of others."""
    models: tuple[str, ...] | None = None
    """Names of the models that it opens; None: all."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    max_open: int | None = None
    """Requests at a time, in each gateway process."""
    quota_tokens: int | None = None
    """Of prompts and answers together, in each `quota_per`."""
    quota_per: Period | None = None
    """A `day` or `month` of UTC, or `ever`."""

    def __post_init__(self) -> None:
        _check("name", "1 to 64 letters, digits, '.', '_', '-'", _matches(_NAME, self.name))
        _check("sha256", "64 hexadecimal digits", _matches(_SHA256, self.sha256))
        _check("admin", "true or false", isinstance(self.admin, bool))
        _check("weight", f"a number more than 0, at most {_MOST_WEIGHT}", _is_weight(self.weight))
        _check("models", f"a list of 1 to {_MOST_MODELS} names", self.models is None or _are_models(self.models))
        for name in ("requests_per_minute", "tokens_per_minute", "max_open", "quota_tokens"):
            value = getattr(self, name)
            _check(name, "a whole number, at least 1", value is None or _is_count(value))
        periods = " or ".join(PERIODS)
        _check("quota_per", periods, self.quota_per is None or self.quota_per in PERIODS)
        if self.quota_tokens is None and self.quota_per is not None:
            raise ValueError("'quota_per' needs 'quota_tokens'")
        if self.quota_tokens is not None and self.quota_per is None:
            raise ValueError("'quota_tokens' needs 'quota_per'")

    def tenant(self) -> Tenant:
        """In whose name requests with this key are dispatched."""
        models = None if self.models is None else frozenset(self.models)
        return Tenant(self.name, bytes.fromhex(self.sha256), float(self.weight), models)


def digest_of(key: bytes) -> bytes:
    """What is kept and compared in place of the key."""
    return hashlib.sha256(key).digest()


def key_of_digest(sha256: str) -> ApiKey:
    """One of which only the digest is known: it has a name made of it, and no bounds of its own. Raises ValueError."""
    return ApiKey(f"key-{sha256[:8].lower()}", sha256)


def nameless_key(key: str) -> ApiKey:
    """One that was given as it is."""
    return key_of_digest(digest_of(key.encode()).hex())


def checked_key(text: str) -> str:
    """The text, if it may be a key. Raises ValueError, which never shows it."""
    if not text.strip():
        raise ValueError("an API key is empty")
    if "," in text or not text.isprintable() or any(char.isspace() for char in text):
        raise ValueError("an API key has no commas, blanks or control characters")
    return text


def _check(field_name: str, expected: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"'{field_name}' must be {expected}")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def _is_weight(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= _MOST_WEIGHT  # type: ignore[operator]  # which NaN is not


def _are_models(names: object) -> bool:
    if not isinstance(names, tuple) or not 1 <= len(names) <= _MOST_MODELS:
        return False
    return all(isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS for name in names)
