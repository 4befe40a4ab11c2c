"""What a gateway may ask of a model server. Fields are only ever appended, with defaults.

Every struct here crosses the wire as msgpack (see wire.py): plain values, text and bytes, never objects or tensors.
"""

from __future__ import annotations

from typing import Any

import msgspec


class SamplingParams(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How to choose the next token. None means "not asked": the model server's `model_forward_kwargs`, then the neutral
    default named here, decide."""

    max_tokens: int | None = None
    """Most tokens to generate; default and upper bound: the room left in the context."""
    min_tokens: int | None = None
    """End tokens and stop strings are not honoured before this many tokens; default 0."""
    temperature: float | None = None
    """0 is greedy; default 1.0."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose probability reaches this, 0 < top_p <= 1; default 1.0."""
    top_k: int | None = None
    """Keep this many most probable tokens; 0 keeps all; default 0."""
    seed: int | None = None
    """Same seed, same text, whatever else runs (but for rounding, in half precision); choice i of n uses a stream of
    its own. Default: drawn at random."""
    stop: tuple[str, ...] | None = None
    """Generation ends before the first of these strings; it is not part of the text. Default none."""
    ignore_eos: bool | None = None
    """Go on after an end token; default False."""


class _Request(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    request_id: str
    """Unique over all gateways: use `vfastml.utils.api.gen_request_id`."""


class Join(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """A gateway opens its session: sent on every completed handshake, and each second until Hello comes back. Requests
    that the same gateway had open before are dropped: it has already failed or moved them."""

    protocol: int
    gateway_id: str


class TextGenerationReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Generate text from exactly one of `messages`, `prompt` or `prompt_token_ids`."""

    model_uri: str | None = None
    """A served name or uri; None is the only model served."""
    model_adapter_uri: str | None = None
    messages: list[dict[str, Any]] | str | None = None
    """Chat messages as plain dicts, rendered with the model's chat template; a string is one user message."""
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    """Independent choices, which share the prompt's KV blocks."""
    stream: bool = True
    """Send deltas as they are generated; False: one delta for each choice, when it ends."""
    echo: bool = False
    """The text starts with the prompt."""
    return_token_ids: bool = False
    """Fill `Accepted.prompt_token_ids` and `Delta.token_ids`."""
    deadline_s: float | None = None
    """Seconds from dispatch, queueing included, after which the request fails."""
    priority: int = 0
    """Smaller runs earlier."""
    cache_salt: str = ""
    """Prefix-cache blocks are shared only between requests of the same salt."""


class TokenizeReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Token ids of a prompt or of rendered messages. Answered by `Tokenized`."""

    model_uri: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | str | None = None
    add_special_tokens: bool = True
    """For `prompt` only: chat templates write their own."""


class DetokenizeReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Text of token ids. Answered by `Detokenized`."""

    model_uri: str | None = None
    tokens: list[int] = []


class OneShotReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """One call of a one-shot model server's `forward`. `inputs` are plain msgpack values (numbers, text, bytes, lists,
    dicts) that the server's author defines. Answered by `Output`."""

    model_uri: str | None = None
    inputs: Any = None


class CancelReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Stop working on that request; unknown ids are ignored. No answer."""


WorkReq = TextGenerationReq | TokenizeReq | DetokenizeReq | OneShotReq
"""What can be dispatched: each gets exactly one terminal reply."""

Request = Join | WorkReq | CancelReq
"""All that travels from gateway to model server."""
