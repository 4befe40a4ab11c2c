"""Model servers that misbehave: `python -m tests.models_servers.stub_server NAME PORT [DRAIN_TIMEOUT_S]`, and what else
a ModelServer takes as OPTION=VALUE."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.model_server import ModelServer
from vfastml.models_servers.unsent_replies import WorkReply


@dataclass
class Asked:
    request_id: str

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 1)


class Silent(ModelServer):
    """Accepts, and never does anything."""

    def load(self) -> None:
        self.asked: list[str] = []

    def prepare(self, request: WorkReq) -> Work:
        return Asked(request.request_id)

    def accept(self, work: Work) -> None:
        self.asked.append(work.request_id)

    def cancel(self, request_id: str) -> None:
        self.asked.remove(request_id)

    def due_in_s(self) -> float | None:
        return None


class Late(Silent):
    """Answers half a second after the request."""

    def accept(self, work: Work) -> None:
        super().accept(work)
        self.due_at_s = time.monotonic() + 0.5

    def due_in_s(self) -> float | None:
        return max(0.0, self.due_at_s - time.monotonic()) if self.asked else None

    def step(self) -> list[WorkReply]:
        request_id = self.asked.pop()
        return [Delta(request_id, text="late", finish_reason="stop"), Finished(request_id)]


class LoadHangs(Silent):
    def load(self) -> None:
        self.report("hanging")
        threading.Event().wait()


class LoadSwallowsExit(Silent):
    def load(self) -> None:
        super().load()
        self.report("hanging")
        with contextlib.suppress(SystemExit):
            threading.Event().wait()


class LoadBreaksAtExit(LoadSwallowsExit):
    def load(self) -> None:
        super().load()
        raise RuntimeError("half of it is there")


class LoadBreaks(Silent):
    def load(self) -> None:
        self.report("loading weights")
        raise RuntimeError("first line\nsecond line " + "x" * 1000)


class StepBreaks(Silent):
    def due_in_s(self) -> float | None:
        return 0 if self.asked else None

    def step(self) -> list[WorkReply]:
        raise RuntimeError("out of cheese")


class LazyStepBreaks(StepBreaks):
    def step(self) -> Iterator[WorkReply]:  # type: ignore[override]
        yield Delta(self.asked[0], text="x")
        raise RuntimeError("out of cheese")


class AcceptBreaks(Silent):
    def accept(self, work: Work) -> None:
        raise RuntimeError("out of cheese")


class CloseNeedsLoad(LoadBreaks):
    def close(self) -> None:
        self.asked.clear()


if __name__ == "__main__":
    name, port, *rest = sys.argv[1:]
    others = dict(option.split("=", 1) for option in rest if "=" in option)
    drain_timeout_s = float(rest[0]) if len(rest) > len(others) else 60.0
    globals()[name](
        "text_generation", "stub", rpc_port=int(port), drain_timeout_s=drain_timeout_s, **others
    ).run_forever()
