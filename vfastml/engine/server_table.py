"""What a gateway knows of its model servers, and which of them gets the next request. Pure: no sockets, no loop,
and the time comes in as an argument (seconds on one monotonic clock).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from vfastml.engine.dispatch_replies import Hello, Limits, Load, ServedModel, Status
from vfastml.errors import InternalServerTooBusyError, InvalidRequestError, ModelNotFoundError

DRAINING_PHASE = "draining"
LOST_RETRY_AFTER_S = 1.0
MAX_STEP_S = 30.0
"""How long a model server's step may take before the server counts as hung, unless a gateway is told otherwise."""


class ServerState(StrEnum):
    """Where a model server stands, as this gateway sees it."""

    UNSEEN = "unseen"
    """Never connected."""
    LOADING = "loading"
    """Connected, no Hello yet."""
    LIVE = "live"
    HUNG = "hung"
    """Connected, but its model's thread, or the whole process, has not moved for too long."""
    DRAINING = "draining"
    """Finishes what it has; gets nothing new."""
    LOST = "lost"
    """The connection is gone."""
    INCOMPATIBLE = "incompatible"
    """Speaks another version of the wire."""


_MAY_COME = (ServerState.UNSEEN, ServerState.LOADING)


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server at one moment, for health and load pages."""

    endpoint: str
    state: ServerState
    phase: str
    progress: float | None
    elapsed_s: float
    """Since the server's process started, by its own account."""
    step_age_s: float
    """Since the last sign of life of the model's thread, the time since the last beat included."""
    open_requests: int
    """Requests of this gateway that are open there."""
    load: Load
    limits: Limits
    models: tuple[ServedModel, ...]
    device: str
    dtype: str = ""
    decoder: str = ""
    """What computes a text model."""
    version: str = ""
    """Of the package that it runs."""


@dataclass(frozen=True, slots=True)
class Startup:
    """How far the service has come since the gateway started."""

    done: bool
    phase: str
    progress: float | None
    elapsed_s: float


@dataclass(slots=True)
class _Server:
    endpoint: str
    state: ServerState = ServerState.UNSEEN
    hello: Hello | None = None
    """The last one, kept when the server is lost: its models stay known."""
    status: Status = field(default_factory=lambda: Status(""))
    heard_at: float = 0.0
    open_requests: int = 0
    picked_in_turn: int = 0
    resumes_as: ServerState = ServerState.LIVE
    """What a hung server is once it moves again."""

    @property
    def models(self) -> tuple[ServedModel, ...]:
        return tuple(self.hello.models) if self.hello else ()

    def model_named(self, name: str) -> ServedModel | None:
        return next((m for m in self.models if name in (m.id, m.uri) or name in m.aliases), None)

    def step_age_s(self, now: float) -> float:
        return self.status.step_age_s + now - self.heard_at

    def busyness(self) -> tuple[int, int]:
        return self.open_requests + self.status.load.waiting, self.picked_in_turn


class ServerTable:
    """The servers of one gateway. Events go in through `on_...`; `pick` chooses; the rest is read by health pages."""

    def __init__(self, endpoints: Iterable[str], *, protocol: int, now: float, max_step_age_s: float) -> None:
        self._servers = {endpoint: _Server(endpoint) for endpoint in endpoints}
        self._protocol = protocol
        self._max_step_age_s = max_step_age_s
        self._started_at = now
        self._ready_at: float | None = None
        self._turn = 0

    def state(self, endpoint: str) -> ServerState:
        return self._servers[endpoint].state

    def on_joined(self, endpoint: str, now: float) -> None:
        """A connection is up; the process at its end may be a new one, still busy loading."""
        server = self._servers[endpoint]
        server.state, server.status, server.heard_at = ServerState.LOADING, Status("starting"), now

    def is_other_process(self, endpoint: str, hello: Hello) -> bool:
        """Whether this Hello comes from another process than the one in use there: what was open there is lost."""
        server = self._servers[endpoint]
        in_use = server.state in (ServerState.LIVE, ServerState.HUNG, ServerState.DRAINING)
        return in_use and server.hello is not None and server.hello.server_id != hello.server_id

    def on_hello(self, endpoint: str, hello: Hello, now: float) -> None:
        """The server is ready, or speaks a version of the wire that we do not."""
        server = self._servers[endpoint]
        server.heard_at = now
        if hello.protocol != self._protocol:
            server.state = ServerState.INCOMPATIBLE
            return
        server.hello = hello
        if server.state is ServerState.LOADING:
            server.state = ServerState.LIVE
        if self._ready_at is None:
            self._ready_at = now

    def on_status(self, endpoint: str, status: Status, now: float) -> None:
        """A beat: how busy the server is, and whether its model's thread moves again."""
        server = self._servers[endpoint]
        server.status, server.heard_at = status, now
        if status.phase == DRAINING_PHASE:
            self.on_goaway(endpoint)
        if server.state is ServerState.HUNG and status.step_age_s <= self._max_step_age_s:
            server.state = server.resumes_as

    def on_goaway(self, endpoint: str) -> None:
        """The server takes nothing new."""
        server = self._servers[endpoint]
        if server.state is ServerState.HUNG:
            server.resumes_as = ServerState.DRAINING
        elif server.state is not ServerState.INCOMPATIBLE:
            server.state = ServerState.DRAINING

    def on_lost(self, endpoint: str) -> None:
        """The connection is gone."""
        server = self._servers[endpoint]
        server.state, server.status = ServerState.LOST, Status("")

    def on_refused(self, endpoint: str, why: str) -> None:
        """No connection comes about, for this reason."""
        self._servers[endpoint].status = Status(why)

    def on_sent(self, endpoint: str) -> None:
        """One more request of ours is open there."""
        self._servers[endpoint].open_requests += 1

    def on_ended(self, endpoint: str) -> None:
        """One of our requests there has ended or moved away."""
        self._servers[endpoint].open_requests -= 1

    def mark_hung(self, now: float) -> list[str]:
        """The endpoints that have just become hung: live or draining, and no step or beat for longer than allowed. A
        server that is loading is never hung: it may hold its interpreter for long."""
        in_use = (ServerState.LIVE, ServerState.DRAINING)
        hung = [s for s in self._servers.values() if s.state in in_use and s.step_age_s(now) > self._max_step_age_s]
        for server in hung:
            server.state, server.resumes_as = ServerState.HUNG, server.state
        return [server.endpoint for server in hung]

    def pick(self, name: str | None, *, without: Collection[str] = ()) -> str | None:
        """The endpoint of the least busy live server of that model (ties in turn), or None: wait, one that may have it
        is still to come. `without` are endpoints that were tried and have no room.

        Raises InvalidRequestError (no name, several models), ModelNotFoundError, InternalServerTooBusyError.
        """
        serving = self._serving(name)
        live = [server for server in serving if server.state is ServerState.LIVE]
        if not live:
            self._raise_unless_one_may_come(name, known=bool(serving))
            return None
        free = [server for server in live if server.endpoint not in without]
        if not free:
            raise InternalServerTooBusyError("Every model server is busy.", retry_after_s=LOST_RETRY_AFTER_S)
        chosen = min(free, key=_Server.busyness)
        self._turn += 1
        chosen.picked_in_turn = self._turn
        return chosen.endpoint

    def model_id(self, endpoint: str, name: str | None) -> str | None:
        """The served id of the model that `pick` found there for that name."""
        model = self.model_at(endpoint, name)
        return model.id if model else None

    def model_at(self, endpoint: str, name: str | None) -> ServedModel | None:
        """The model that `pick` found there for that name."""
        server = self._servers[endpoint]
        return server.models[0] if name is None else server.model_named(name)

    def models(self) -> list[ServedModel]:
        """Every model of every server that has ever said Hello, lost ones too, each id once."""
        by_id: dict[str, ServedModel] = {}
        for server in self._servers.values():
            for model in server.models:
                by_id.setdefault(model.id, model)
        return list(by_id.values())

    def views(self, now: float) -> list[ServerView]:
        """All servers, in the order they were configured in."""
        return [_view(server, now) for server in self._servers.values()]

    def is_ready(self) -> bool:
        """Whether at least one server is live, and each known model has a live one."""
        live = [server for server in self._servers.values() if server.state is ServerState.LIVE]
        served = {model.id for server in live for model in server.models}
        return bool(live) and all(model.id in served for model in self.models())

    def startup(self, now: float) -> Startup:
        """Done once any server has said Hello; else the phase of the server that has been loading for longest."""
        if self._ready_at is not None:
            return Startup(True, "ready", 1.0, self._ready_at - self._started_at)
        loading = [s for s in self._servers.values() if s.state is ServerState.LOADING]
        if not loading:
            refused = [server.status.phase for server in self._servers.values() if server.status.phase]
            phase = refused[0] if refused else "waiting for a model server"
            return Startup(False, phase, None, now - self._started_at)
        first = max(loading, key=lambda server: server.status.elapsed_s)
        elapsed_s = first.status.elapsed_s + now - first.heard_at
        return Startup(False, first.status.phase, first.status.progress, elapsed_s)

    def _serving(self, name: str | None) -> list[_Server]:
        if name is not None:
            return [server for server in self._servers.values() if server.model_named(name)]
        if len(self.models()) > 1:
            raise InvalidRequestError("Several models are served here: name one in 'model'.", param="model")
        return [server for server in self._servers.values() if server.models]

    def _raise_unless_one_may_come(self, name: str | None, *, known: bool) -> None:
        states = [server.state for server in self._servers.values()]
        # Beside live servers, one that was never seen may never come: an unknown name waits only for one that loads.
        unknown_beside_live = ServerState.LIVE in states and not known
        may_come = (ServerState.LOADING,) if unknown_beside_live else _MAY_COME
        if any(state in may_come for state in states):
            return
        if name is not None and not known and self.models():
            raise ModelNotFoundError("The model does not exist: GET /v1/models names those there are.", param="model")
        raise InternalServerTooBusyError(
            "No model server is available; try again shortly.", retry_after_s=LOST_RETRY_AFTER_S
        )


def _view(server: _Server, now: float) -> ServerView:
    beats = server.state in (ServerState.LIVE, ServerState.HUNG, ServerState.DRAINING)
    return ServerView(
        endpoint=server.endpoint,
        state=server.state,
        phase=server.status.phase,
        progress=server.status.progress,
        elapsed_s=server.status.elapsed_s,
        step_age_s=server.step_age_s(now) if beats else 0.0,
        open_requests=server.open_requests,
        load=server.status.load,
        limits=server.hello.limits if server.hello else Limits(),
        models=server.models,
        device=server.hello.device if server.hello else "",
        dtype=server.hello.dtype if server.hello else "",
        decoder=server.hello.decoder if server.hello else "",
        version=server.hello.version if server.hello else "",
    )
