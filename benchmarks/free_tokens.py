"""A model server that makes tokens for nothing: `python -m benchmarks.free_tokens PORT STEP_MS`.

A real one in all but the model: its process, its link, one reply for each step. What a gateway can do is then what is
measured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Limits, Load, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.errors import UnsupportedError
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.model_server import ModelServer
from vfastml.models_servers.unsent_replies import WorkReply

_TEXTS = (" the", " quick", " brown", " fox", "\n", " jumps", ' "over"', " a", " lazy", " dog", ".", " caf\xe9")


@dataclass
class Unmade:
    """A request, and how many of its tokens are still to come."""

    request_id: str
    tokens: int

    def accepted(self) -> Accepted:
        """See Work."""
        return Accepted(self.request_id, 1)


class FreeTokenServer(ModelServer):
    """Gives each open request one token in each step, `max_tokens` times. Steps are at least `step_s` apart."""

    def __init__(self, rpc_port: int, step_s: float) -> None:
        super().__init__("text_generation", "free-tokens", rpc_port=rpc_port, log_level="warning")
        self._step_s = step_s

    def load(self) -> None:
        """See ModelServer."""
        self._open: dict[str, Unmade] = {}
        self._next_step_s = 0.0

    def prepare(self, request: WorkReq) -> Work:
        """See ModelServer."""
        if not isinstance(request, TextGenerationReq):
            raise UnsupportedError("Only text is made here.")
        return Unmade(request.request_id, request.sampling.max_tokens or 1)

    def accept(self, work: Work) -> None:
        """See ModelServer."""
        assert isinstance(work, Unmade)
        self._open[work.request_id] = work

    def cancel(self, request_id: str) -> None:
        """See ModelServer."""
        self._open.pop(request_id, None)

    def due_in_s(self) -> float | None:
        """See ModelServer."""
        return max(0.0, self._next_step_s - time.monotonic()) if self._open else None

    def step(self) -> list[WorkReply]:
        """See ModelServer."""
        self._next_step_s = max(self._next_step_s + self._step_s, time.monotonic())
        replies: list[WorkReply] = []
        for unmade in list(self._open.values()):
            unmade.tokens -= 1
            text = _TEXTS[unmade.tokens % len(_TEXTS)]
            reason = None if unmade.tokens else "length"
            replies.append(Delta(unmade.request_id, 0, text, finish_reason=reason, num_tokens=1))
            if not unmade.tokens:
                replies.append(Finished(unmade.request_id, Usage(1, 1)))
                del self._open[unmade.request_id]
        return replies

    def limits(self) -> Limits:
        """See ModelServer. Nothing waits here: all that comes runs."""
        return Limits(max_num_seqs=1 << 20)

    def current_load(self) -> Load:
        """See ModelServer."""
        return Load(running=len(self._open))


if __name__ == "__main__":
    FreeTokenServer(int(sys.argv[1]), float(sys.argv[2]) / 1e3).run_forever()
