"""The JSON of `/load`: what a gateway knows of its model servers."""

from __future__ import annotations

import msgspec

_BEATING = ("live", "hung", "draining")


class ServerCounts(msgspec.Struct, frozen=True):
    """How busy a model server is. From `preemptions` on they only grow while its process lives."""

    running: int = 0
    waiting: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


GROWING = ("preemptions", "prefix_hit_tokens", "prefix_query_tokens", "prompt_tokens", "generated_tokens")


class ServedName(msgspec.Struct, frozen=True):
    """A model, as clients name it."""

    id: str


class ServerPage(msgspec.Struct, frozen=True):
    """One model server."""

    endpoint: str
    state: str
    phase: str = ""
    progress: float | None = None
    elapsed_s: float = 0.0
    """Since its process started."""
    step_age_s: float = 0.0
    load: ServerCounts = ServerCounts()
    models: tuple[ServedName, ...] = ()

    @property
    def is_heard(self) -> bool:
        """Whether its numbers are of now."""
        return self.state in _BEATING

    def goes_on(self, before: ServerPage) -> bool:
        """Whether it is the process that it was then, heard both times: its counters can be compared."""
        return self.is_heard and before.is_heard and self.elapsed_s >= before.elapsed_s


class LoadPage(msgspec.Struct, frozen=True):
    """The whole service."""

    servers: tuple[ServerPage, ...]


def parse_load(content: bytes) -> LoadPage:
    """Raises msgspec.MsgspecError when it is something else."""
    return msgspec.json.decode(content, type=LoadPage)
