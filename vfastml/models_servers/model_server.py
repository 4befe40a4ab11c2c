"""A process that holds one model: load it, say Hello, work until told to stop.

An author of a new kind of server writes `load`, `prepare`, `accept`, `cancel`, `due_in_s` and `step`; for models that
simply map a list of inputs to a list of outputs, OneShotModelServer leaves only `load` and `forward` to write.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import queue
import secrets
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import zmq

from vfastml import __version__
from vfastml.engine import wire
from vfastml.engine.addresses import is_loopback
from vfastml.engine.dispatch_replies import Hello, Limits, Load, ServedModel
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.engine.ipc_folder import IpcFolderError
from vfastml.engine.request_failure import failure
from vfastml.engine.server_table import MAX_STEP_S
from vfastml.engine.wire_keys import WireKeyError
from vfastml.errors import VFastMLError
from vfastml.models_servers.admission import MAX_WAITING, MAX_WAITING_TOKENS, Admission
from vfastml.models_servers.inbox import Cancelled, InboxItem, Wake, Work
from vfastml.models_servers.ipc_place import IpcPlaceError
from vfastml.models_servers.local_run import LocalRun
from vfastml.models_servers.server_link import ServerLink
from vfastml.models_servers.step_watchdog import StepWatchdog
from vfastml.models_servers.unsent_replies import Answer, WorkReply
from vfastml.utils.garbage import settle_garbage_collection
from vfastml.utils.logging import configure_logging

logger = logging.getLogger(__name__)

EXIT_START_FAILED = 1
EXIT_ENGINE_FATAL = 70
"""EX_SOFTWARE: the model's thread broke or hangs; a supervisor should start the process again."""

_LONGEST_SLEEP_S = 0.5
_LOOK_AGAIN_S = 0.05
"""While draining: how often to ask whether all has been said."""
_CLOSING_S = 15.0
"""To let go of everything: the link takes two at the most, the rest is the author's `close`."""


class StartError(Exception):
    """Loading failed for a reason that one sentence explains; the process exits with status 1."""


class ModelServer:
    """Base of all model servers. The constructor only stores its arguments; `run_forever` serves gateways, and
    `run_until_idle` answers what this process itself has submitted.

    Of what does not run yet, gateways may have `max_waiting` choices wait, and `max_waiting_tokens` of prompts and
    answers: what is more is refused. With `rpc_ipc` gateways of this machine connect to that socket file, and there is
    no port. `wire_keys` is a folder that `vfastml keys wire` has made: only gateways that it names are heard.

    The constructor raises ValueError for a `max_step_s` that is not positive, and for `rpc_ipc` with `wire_keys`.
    """

    def __init__(
        self,
        model_type: str,
        model_uri: str,
        model_device: str = "auto",
        model_load_kwargs: dict[str, Any] | None = None,
        model_forward_kwargs: Any = None,
        *,
        served_model_names: Sequence[str] = (),
        rpc_host: str = "127.0.0.1",
        rpc_port: int = 6500,
        rpc_ipc: str | None = None,
        wire_keys: str | None = None,
        insecure: bool = False,
        drain_timeout_s: float = 30.0,
        max_step_s: float = MAX_STEP_S,
        max_waiting: int = MAX_WAITING,
        max_waiting_tokens: int = MAX_WAITING_TOKENS,
        ready_fd: int | None = None,
        log_level: str = "info",
        log_format: str = "text",
    ) -> None:
        if max_step_s <= 0:
            raise ValueError("max_step_s must be positive")
        if rpc_ipc is not None and wire_keys is not None:
            raise ValueError("rpc_ipc needs no wire_keys: the folder's mode keeps others out; give one of them")
        self.model_type = model_type
        self.model_uri = model_uri
        self.model_device = model_device
        self.model_load_kwargs = dict(model_load_kwargs or {})
        self.model_forward_kwargs = _own(model_forward_kwargs)
        """A dict, or what else the kind of server takes."""
        self.served_model_names = tuple(served_model_names)
        self.rpc_host = rpc_host
        self.rpc_port = rpc_port
        self.rpc_ipc = None if rpc_ipc is None else os.path.abspath(rpc_ipc)
        self.wire_keys = wire_keys
        self.insecure = insecure
        """Allows a wide bind without keys: whoever reaches the port can send requests."""
        self.drain_timeout_s = drain_timeout_s
        self.max_step_s = max_step_s
        """A `step` that takes longer ends the process. None is meant to: gateways give such a server up."""
        self.ready_fd = ready_fd
        """Gets one line when the model is ready, for whoever has started this process, and is closed then."""
        self.log_level = log_level
        self.log_format = log_format
        admission = Admission(max_waiting, max_waiting_tokens)
        self._link = ServerLink(rpc_host, rpc_port, self.prepare, admission, ipc_path=self.rpc_ipc, wire_keys=wire_keys)
        self._inbox = self._link.inbox
        self._phase = "starting"
        self._is_loaded = False
        self._stop_at_s: float | None = None
        self._submitted: list[WorkReq] = []

    # -- what a kind of server fills in

    def load(self) -> None:
        """Loads the model and runs it once for real: Hello goes out when this returns. Raises StartError (or any error
        of vfastml.errors) with a sentence for the operator."""
        raise TypeError(f"{type(self).__name__} must define load()")

    def prepare(self, request: WorkReq) -> Work | Answer:
        """On the I/O thread: checks a request. Returns work for `accept`, or the whole answer. Raises an error of
        vfastml.errors to refuse it."""
        raise TypeError(f"{type(self).__name__} must define prepare()")

    def accept(self, work: Work) -> None:
        """Queues checked work. If it raises, the request fails, and the server must not have kept it."""
        raise TypeError(f"{type(self).__name__} must define accept()")

    def cancel(self, request_id: str) -> None:
        """Forgets a request, if it is still open."""
        raise TypeError(f"{type(self).__name__} must define cancel()")

    def due_in_s(self) -> float | None:
        """Seconds until the next `step`; 0 for now, None for when there is new work."""
        raise TypeError(f"{type(self).__name__} must define due_in_s()")

    def step(self) -> Iterable[WorkReply]:
        """Works for a short while, and returns what there is to say. Raises only if no further step makes sense."""
        raise TypeError(f"{type(self).__name__} must define step()")

    def close(self) -> None:
        """Lets go of what `load` took, within 15 s at the end of `run_forever`; not called if that failed."""

    def served_models(self) -> list[ServedModel]:
        """The models of Hello: the first name is the id, the others aliases; clients may use the uri too."""
        first, *aliases = self.served_model_names or (self.model_uri,)
        return [ServedModel(first, self.model_uri, aliases, created=int(time.time()))]

    def limits(self) -> Limits:
        """What loading settled."""
        return Limits()

    def current_load(self) -> Load:
        """How busy the server is."""
        return Load()

    def device_and_dtype(self) -> tuple[str, str]:
        """For Hello."""
        return self.model_device, ""

    def decoder(self) -> str:
        """For Hello: what computes a text model."""
        return ""

    # -- what is the same for all

    def report(self, phase: str, progress: float | None = None) -> None:
        """Tells the log and the gateways what loading is busy with."""
        if phase != self._phase:
            logger.info("%s", phase)
        self._phase = phase
        self._link.report(phase, progress)

    def run_forever(self) -> None:
        """Serves until SIGTERM or Ctrl-C, then finishes what is open and returns. Exits with 1 if it cannot start or
        does not come to its end, and with 70 if the model breaks or one of its steps does not end."""
        configure_logging(self.log_level, self.log_format, "model-server")
        # A busy Python thread otherwise keeps the interpreter from the others for 5 ms at a time.
        sys.setswitchinterval(1e-4)
        self._own_signals()
        try:
            self._open_link()
            self._load_and_greet()
            self._serve()
        finally:
            with _bounded_end():
                self._link.close()
                if self._link.is_ready:
                    self._is_loaded = False
                    self.close()

    def submit(self, request: WorkReq) -> None:
        """Keeps a request for `run_until_idle`."""
        self._submitted.append(request)

    def run_until_idle(self) -> list[DispatchRequestResult]:
        """Answers what was submitted, in this process and without sockets, and returns the results in the order of
        submission. A refusal is a result with an error. Loads the model the first time; can be called again.

        Raises what `load` raises, and whatever else breaks; then what was submitted is dropped.
        """
        self._load_once()
        submitted, self._submitted = self._submitted, []
        return LocalRun(self).answer(submitted)

    def _serve(self) -> None:
        watchdog = StepWatchdog(self.max_step_s, EXIT_ENGINE_FATAL)
        watchdog.start()
        try:
            while not self._is_done():
                self._wait_for_work()
                if self.due_in_s() == 0:
                    watchdog.step_begins()
                    self._step()
                    watchdog.step_ended()
        except Exception:
            logger.critical("the model's thread broke; exiting with status %d", EXIT_ENGINE_FATAL, exc_info=True)
            raise SystemExit(EXIT_ENGINE_FATAL) from None
        finally:
            watchdog.stop()

    def _open_link(self) -> None:
        if self.rpc_ipc is None and not (is_loopback(self.rpc_host) or self.wire_keys or self.insecure):
            _exit_at_start(
                f"other machines can reach {self.rpc_host}: give it --wire-keys (`vfastml keys wire` makes them), "
                "allow that with --insecure, or use 127.0.0.1"
            )
        try:
            port = self._link.open()
        except (WireKeyError, IpcFolderError, IpcPlaceError) as error:
            _exit_at_start(str(error))
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                _exit_at_start(f"port {self.rpc_port} is in use: stop the other server or choose another --rpc-port")
            _exit_at_start(f"cannot listen on {self.rpc_ipc or f'{self.rpc_host}:{self.rpc_port}'}: {error}")
        where = f"ipc://{self.rpc_ipc}" if self.rpc_ipc else f"tcp://{self.rpc_host}:{port}"
        logger.info("model server listens on %s%s", where, ", for gateways with keys" if self.wire_keys else "")

    def _load_and_greet(self) -> None:
        began = time.monotonic()
        try:
            self._load_once()
            settle_garbage_collection()
            hello = self._hello()
            self._link.send([], self.current_load())
            self._link.ready(hello)
        except (StartError, VFastMLError) as error:
            _exit_at_start(str(error))
        except Exception as error:  # whatever a library raises at a model that it cannot read
            logger.debug("loading failed here", exc_info=True)
            if self._stop_at_s is not None:  # or at a signal in the midst of it
                raise SystemExit(0) from None
            _exit_at_start(
                f"{self.model_uri} failed while {self._phase} ({type(error).__name__}: {_one_line(error)}): fetch the "
                "model again or choose another one; --log-level debug shows where it failed"
            )
        logger.info("%s is ready after %.1f s", hello.models[0].id, time.monotonic() - began)
        self._tell_starter()

    def _tell_starter(self) -> None:
        if self.ready_fd is not None:
            with contextlib.suppress(OSError):  # it does not listen any more
                os.write(self.ready_fd, b"ready\n")
                os.close(self.ready_fd)

    def _load_once(self) -> None:
        if not self._is_loaded:
            self.load()
            self._is_loaded = True

    def _hello(self) -> Hello:
        device, dtype = self.device_and_dtype()
        server_id = secrets.token_hex(8)
        return Hello(
            wire.PROTOCOL,
            server_id,
            self.model_type,
            self.served_models(),
            self.limits(),
            device=device,
            dtype=dtype,
            decoder=self.decoder(),
            version=__version__,
        )

    def _is_done(self) -> bool:
        if self._stop_at_s is None:
            return False
        return self._link.is_idle or time.monotonic() >= self._stop_at_s

    def _step(self) -> None:
        self._link.step_begins()
        replies = list(self.step())
        self._link.step_ended()
        self._link.send(replies, self.current_load())

    def _wait_for_work(self) -> None:
        """Takes all that has come in; sleeps first if nothing is due."""
        due = self.due_in_s()
        # Draining, the last reply leaves on the other thread. And a signal that comes just before the sleep begins is
        # seen only after it.
        longest = _LONGEST_SLEEP_S if self._stop_at_s is None else _LOOK_AGAIN_S
        due = longest if due is None else min(due, longest)
        try:
            self._take(self._inbox.get(timeout=due) if due != 0 else self._inbox.get_nowait())
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            pass

    def _take(self, item: InboxItem) -> None:
        if isinstance(item, Wake):
            return
        self._link.send(self._refused(item), self.current_load())

    def _refused(self, item: Work | Cancelled) -> list[WorkReply]:
        """Hands it to the server. What that raises is the trouble of this request alone."""
        try:
            if isinstance(item, Cancelled):
                self.cancel(item.request_id)
            else:
                self.accept(item)
        except Exception as error:
            failed = failure(item.request_id, error, "The request could not be begun.")
            return [] if isinstance(item, Cancelled) else [failed]
        return []

    def _own_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._stop_at_s is not None or not self._link.is_ready:
            logger.info("stopping now")
            # A library may swallow the exit while it loads: then serving ends at once.
            self._stop_at_s = time.monotonic()
            raise SystemExit(0)
        logger.info("draining: %d requests open, for at most %.0f s", self._link.num_open, self.drain_timeout_s)
        self._stop_at_s = time.monotonic() + self.drain_timeout_s
        self._link.drain("shutting down")
        self._inbox.put(Wake())


@contextlib.contextmanager
def _bounded_end() -> Iterator[None]:
    """What takes too long ends the process, with every thread's stack on stderr: whoever has told it to stop waits."""
    with contextlib.suppress(RuntimeError, ValueError, OSError):  # no stderr
        faulthandler.dump_traceback_later(_CLOSING_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _own(kwargs: Any) -> Any:
    """A copy of a dict, so that nobody else changes it; an empty one for None."""
    return dict(kwargs or {}) if isinstance(kwargs, dict | None) else kwargs


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def _exit_at_start(reason: str) -> NoReturn:
    logger.error("%s", reason)
    raise SystemExit(EXIT_START_FAILED)
