"""A service over HTTP, as the commands see it."""

from __future__ import annotations

import argparse
import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from prebuilt_apps import flag_types
from prebuilt_apps.cli.server_events import answer_text, error_sentence
from prebuilt_apps.cli.service_error import NobodyAnswersError, ServiceError
from prebuilt_apps.flags import Repeated
from prebuilt_apps.variables import variable_of
from vfastml.engine.addresses import is_loopback

_CONNECT_S = 5.0
_SILENCE_S = 120.0
"""A gateway holds a request for 30 s while a model loads, and breaks the silence of a stream every 15 s."""

Message = dict[str, Any]


def default_url() -> str:
    """Where `serve` with this environment answers."""
    return f"http://127.0.0.1:{port_here('port', 8080)}"


def port_here(flag: str, default: int) -> int:
    """The port that a server with this environment has; the default where it takes a free one, or would refuse."""
    try:
        return flag_types.port(os.environ.get(variable_of(flag), "")) or default
    except ArgumentTypeError:
        return default


def add_url_flag(parser: argparse._ActionsContainer) -> None:
    """Where the service is. None: not said."""
    help_ = f"where the service answers (default: {default_url()})"
    parser.add_argument("--url", type=flag_types.url, metavar="URL", help=help_)


def add_service_flags(parser: argparse._ActionsContainer) -> None:
    """Where the service is, and what opens it."""
    add_url_flag(parser)
    add_key_flag(parser)


def add_key_flag(parser: argparse._ActionsContainer) -> None:
    """What opens a service."""
    help_ = "key that the service asks for; the variable does not show in the list of processes"
    parser.add_argument("--api-key", action=Repeated, type=flag_types.api_key, metavar="KEY", help=help_)


def key_of(options: argparse.Namespace) -> str | None:
    """The key to send. The variable may hold all that a gateway on this machine takes."""
    return options.api_key[0] if options.api_key else None


class ServiceClient:
    """Its methods raise ServiceError, and NobodyAnswersError when there is no service."""

    def __init__(self, url: str, api_key: str | None = None, *, silence_s: float = _SILENCE_S) -> None:
        self.url = url
        self._http = httpx.Client(**http_options(url, api_key, silence_s))

    def close(self) -> None:
        """Ends all connections."""
        self._http.close()

    def check_answers(self) -> None:
        """Returns if anything at all answers there."""
        self.get("/livez")

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body, None if it has none."""
        with told_in_a_sentence(self.url):
            response = self._http.get(self.url + path)
        return response.status_code, _json_of(response)

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        status, body = self.get("/v1/models")
        models = body.get("data") if status == 200 and isinstance(body, dict) else None
        if not isinstance(models, list):
            raise ServiceError(_sentence(status, body))
        return [model for model in models if isinstance(model, dict)]

    def chat(self, messages: list[Message], **fields: Any) -> Iterator[str]:
        """The answer as it comes. Closing the iterator stops the request. Fields that are None are not sent."""
        asked = {name: value for name, value in fields.items() if value is not None}
        body = {"messages": messages, "stream": True, **asked}
        with (
            told_in_a_sentence(self.url),
            self._http.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise ServiceError(_sentence(response.status_code, _json_of(response)))
            yield from answer_text(response.iter_bytes())


def http_options(url: str, api_key: str | None, silence_s: float) -> dict[str, Any]:
    """What an HTTP client of a service is made with."""
    return {
        "headers": {b"authorization": b"Bearer " + api_key.encode()} if api_key else None,
        "timeout": httpx.Timeout(silence_s, connect=min(silence_s, _CONNECT_S)),
        # What a proxy for the outer world knows of this machine is not this machine.
        "trust_env": not is_loopback(urlsplit(url).hostname or ""),
    }


@contextmanager
def told_in_a_sentence(url: str) -> Iterator[None]:
    """Raises ServiceError, or NobodyAnswersError, for what goes wrong on the way to a service."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NobodyAnswersError(f"Nothing answers at {url} ({error}).") from error
    except httpx.TimeoutException as error:
        raise ServiceError(f"The service at {url} does not answer in time.") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise NobodyAnswersError(f"{url} cannot be asked ({error}).") from error
    except httpx.HTTPError as error:
        raise ServiceError(f"The connection to {url} broke ({error}).") from error


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _sentence(status: int, body: Any) -> str:
    return error_sentence(body) or f"The server answered with HTTP status {status}, and not as an OpenAI server does."
