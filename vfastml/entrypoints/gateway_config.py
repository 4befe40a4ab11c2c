"""What can be set on a gateway, with the defaults that the command line shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from vfastml.engine.addresses import is_exposed
from vfastml.engine.discovery import static_endpoints
from vfastml.engine.ipc_folder import check_ipc_folder, ipc_folder_of
from vfastml.engine.server_table import MAX_STEP_S
from vfastml.engine.wire_keys import GatewayKeys
from vfastml.entrypoints.limits import BODY_TIMEOUT_S, MAX_BODY_BYTES
from vfastml.utils.logging import checked_level, checked_log_format

ACCESS_LOGS = ("all", "errors", "off")
TRACE_SAMPLE = 0.01

_OTLP_PATH = "/v1/traces"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_FIRST_OF_ROUTES = (
    "v1",
    "apply-template",
    "tokenize",
    "detokenize",
    "livez",
    "startupz",
    "readyz",
    "health",
    "load",
    "version",
)
_FIRST_OF_PAGES = ("docs", "redoc", "openapi.json")
"""How the paths of built-in routes begin: a prefix that begins so too could not be told from them."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Checked when made: raises ValueError with a sentence for the operator."""

    model_servers: tuple[str, ...] = ("tcp://127.0.0.1:6500",)
    """Endpoints of the model servers."""
    api_keys: tuple[str, ...] = ()
    """Any of them opens every route; without them and an `api_key_file` no key is asked for."""
    api_key_file: str | None = None
    """A file of more keys, in TOML where its name ends in `.toml`, else one in a line. It is read again whenever it has
    changed."""
    wire_keys: str | None = None
    """The folder of a gateway that `vfastml keys wire` has made: for all model servers that are not on ipc."""
    insecure: bool = False
    """Listen beyond this machine without keys, and send prompts in clear text to model servers on others."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call from a browser, `https://host` or `http://host:port`; `*` is any."""
    root_path: str = ""
    """The prefix under which a proxy publishes the gateway, such as `/llm`, whether it takes it off or passes it on."""
    log_level: str = "info"
    log_format: str = "text"
    """Of log lines: `text` or `json`."""
    access_log: str = "errors"
    """Which requests are logged: `all`, those that ended as `errors`, or none (`off`)."""
    drain_delay_s: float = 0.0
    """How long new requests are still taken after the first SIGTERM or SIGINT, while the gateway is not ready any more:
    the time that load balancers need to see it."""
    drain_timeout_s: float = 30.0
    """How long open requests may go on after that."""
    request_timeout_s: float = 0.0
    """How long a request may take in all; 0: no bound. The header `x-request-timeout` can shorten it."""
    body_timeout_s: float = BODY_TIMEOUT_S
    """How long a body may be silent before it is given up."""
    keep_alive_s: float = 15.0
    """Silence in a stream after which a comment is sent."""
    max_body_bytes: int = MAX_BODY_BYTES
    hold_s: float = 30.0
    """How long a request waits for a model server that is still loading."""
    max_held: int = 256
    """How many requests wait so at a time."""
    max_step_s: float = MAX_STEP_S
    """How long one step or `forward` may take before its server is taken for hung, and its requests are moved or
    failed."""
    max_open: int = 4096
    """How many HTTP requests may be open at a time, probes aside."""
    max_open_per_key: int = 0
    """How many of them with an API key for which its file says nothing else; 0: no bound of their own."""
    admin: bool = True
    """Measure, and have a listener for operators: metrics, load and keys."""
    admin_host: str = "127.0.0.1"
    """Where that listens; operators need a key where other machines reach it."""
    admin_port: int | None = None
    """None: the port after the gateway's own, or no such listener if that one is taken; 0: a free one."""
    ledger: str | None = None
    """The file in which it is written down what each key has used; None: nowhere."""
    ledger_keep_days: int = 90
    """How long its rows of single requests are kept; its totals are for ever."""
    trace_endpoint: str = ""
    """Where an OpenTelemetry collector takes traces over HTTP, `http://host:4318`; empty: nowhere. Needs the packages
    of `vfastml[trace]`."""
    trace_file: str = ""
    """A file that gets each span of a trace as a line of JSON; empty: none. Needs the same packages."""
    trace_sample: float = TRACE_SAMPLE
    """The share of requests that are traced, 0 to 1, of those that do not come with a trace of their client's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_servers", static_endpoints(_listed("model_servers", self.model_servers)))
        _check_wire(self)
        object.__setattr__(self, "api_keys", _listed("api_keys", self.api_keys))
        if any(not key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty")
        if self.api_key_file is not None and not self.api_key_file:
            raise ValueError("the name of the API key file is empty")
        origins = tuple(_checked_origin(origin) for origin in _listed("cors_origins", self.cors_origins))
        object.__setattr__(self, "cors_origins", origins)
        _check_root_path(self.root_path)
        object.__setattr__(self, "log_level", checked_level(self.log_level))
        if self.ledger == "":
            raise ValueError("the ledger is the name of a file, which is empty")
        checked_log_format(self.log_format)
        if self.access_log not in ACCESS_LOGS:
            raise ValueError(f"unknown access log {self.access_log!r}: expected one of {', '.join(ACCESS_LOGS)}")
        if self.admin_port is not None and not 0 <= self.admin_port < 1 << 16:
            raise ValueError("admin_port is a number between 0 and 65535")
        for name in ("keep_alive_s", "max_body_bytes", "max_step_s", "max_open", "body_timeout_s", "ledger_keep_days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        for name in ("drain_delay_s", "drain_timeout_s", "request_timeout_s", "hold_s", "max_held", "max_open_per_key"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        object.__setattr__(self, "trace_endpoint", _checked_trace_endpoint(self.trace_endpoint))
        self._check_trace_sample()

    @property
    def is_traced(self) -> bool:
        """Whether traces go anywhere."""
        return bool(self.trace_endpoint or self.trace_file)

    def _check_trace_sample(self) -> None:
        if not 0 <= self.trace_sample <= 1:
            raise ValueError("trace_sample must be a share between 0 and 1")
        if self.trace_sample != TRACE_SAMPLE and not self.is_traced:
            raise ValueError("trace_sample says nothing without a trace_endpoint or a trace_file")

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers need a key."""
        return bool(self.api_keys) or self.api_key_file is not None

    def with_options(self, options: dict[str, Any]) -> GatewayConfig:
        """A copy with these options set. Raises TypeError for unknown ones, by name."""
        known = [field.name for field in fields(self)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(f"unknown option {', '.join(map(repr, unknown))}: the options are {', '.join(known)}")
        return replace(self, **options)


def _check_wire(config: GatewayConfig) -> None:
    for folder in filter(None, map(ipc_folder_of, config.model_servers)):
        check_ipc_folder(folder)
    if config.wire_keys is not None:
        GatewayKeys(config.wire_keys).check(config.model_servers)
        return
    exposed = [endpoint for endpoint in config.model_servers if is_exposed(endpoint)]
    if exposed and not config.insecure:
        raise ValueError(
            f"prompts would travel in clear text to {exposed[0]}: give wire keys (`vfastml keys wire` makes them), or "
            "say that insecure is meant"
        )


def _listed(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{name} is a list of strings, not one string")
    return tuple(values)


def _checked_origin(text: str) -> str:
    """As browsers send it: in small letters. Raises ValueError for what would never be equal to one."""
    origin = text.strip().lower()
    if origin == "*":
        return origin
    parts = _ORIGIN.fullmatch(origin)
    if parts is None:
        raise ValueError(f"bad CORS origin {text!r}: expected scheme://host, scheme://host:port or *")
    scheme, _, port = parts.groups()
    if port is not None and _DEFAULT_PORTS.get(scheme) == port:
        raise ValueError(f"bad CORS origin {text!r}: browsers leave out {port}, the port of {scheme}")
    return origin


def _check_root_path(path: str) -> None:
    if path and not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"bad root path {path!r}: expected a path such as /llm, without a slash at its end")
    first = path.split("/")[1] if path else ""
    if first in (*_FIRST_OF_ROUTES, *_FIRST_OF_PAGES):
        raise ValueError(f"bad root path {path!r}: routes of the gateway begin with /{first}, choose another beginning")


def _checked_trace_endpoint(url: str) -> str:
    """With the path that OTLP has, where it has none. Raises ValueError for what is no such address."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or not url.isprintable():
        raise ValueError("trace_endpoint must be the address of a collector, such as http://127.0.0.1:4318")
    if "@" in parts.netloc:
        raise ValueError("trace_endpoint has no place for a password: put it into OTEL_EXPORTER_OTLP_HEADERS")
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{_OTLP_PATH}"
