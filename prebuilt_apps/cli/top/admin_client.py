"""Snapshots of a service, from its admin listener."""

from __future__ import annotations

import time
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec

from prebuilt_apps.cli.service_client import http_options, told_in_a_sentence
from prebuilt_apps.cli.service_error import ServiceError
from prebuilt_apps.cli.top.load_page import LoadPage, parse_load
from prebuilt_apps.cli.top.rates import Snapshot
from prebuilt_apps.cli.top.scrape import NotMetricsError, Values, parse_metrics

_SILENCE_S = 5.0
_GUESS_S = 2.0
_KEY_ADVICE = "give one that has admin = true in the gateway's key file, as --api-key or in VFASTML_API_KEY"


class AdminClient:
    """Its methods raise ServiceError."""

    def __init__(self, url: str, api_key: str | None = None, *, silence_s: float = _SILENCE_S) -> None:
        self.url = url
        self._has_key = api_key is not None
        self._http = httpx.AsyncClient(**http_options(url, api_key, silence_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def snapshot(self) -> Snapshot:
        """The service now."""
        values = await self._metrics()
        load = await self._load()
        return Snapshot(time.monotonic(), time.time(), values, load)

    async def _metrics(self) -> Values:
        response = await self._get("/metrics")
        if response.status_code != 200:
            raise ServiceError(await self._refusal(response.status_code))
        try:
            return parse_metrics(response.text)
        except NotMetricsError as error:
            raise ServiceError(f"What {self.url} answers at /metrics is not of VFastML.") from error

    async def _load(self) -> LoadPage:
        response = await self._get("/load")
        if response.status_code != 200:
            raise ServiceError(f"{self.url} answers with HTTP status {response.status_code} at /load.")
        try:
            return parse_load(response.content)
        except msgspec.MsgspecError as error:
            raise ServiceError(f"What {self.url} answers at /load is not of VFastML.") from error

    async def _refusal(self, status: int) -> str:
        """Why there are no metrics."""
        if await self._is_public_listener():
            where = await self._neighbour()
            return f"{self.url} is where a gateway answers its users; its metrics are on its admin listener{where}."
        if status == 401:
            return f"{self.url} {'refuses that key' if self._has_key else 'asks for an API key'}: {_KEY_ADVICE}."
        if status == 403:
            return f"{self.url} refuses that key: {_KEY_ADVICE}."
        return f"{self.url} answers with HTTP status {status} at /metrics: no admin listener of VFastML."

    async def _is_public_listener(self) -> bool:
        """Only that one has this probe; it asks for no key."""
        response = await self._get("/startupz")
        return response.status_code in (200, 503) and b'"phase"' in response.content

    async def _neighbour(self) -> str:
        """Where the admin listener is, if it is where it is by default."""
        url = neighbour_of(self.url)
        if url is None:
            return " (--admin-port)"
        try:
            # Without the key: it was not meant for that listener.
            async with httpx.AsyncClient(**http_options(url, None, _GUESS_S)) as http:
                with told_in_a_sentence(url):
                    response = await http.get(f"{url}/metrics")
        except ServiceError:
            return f", by default on the port after that one: {url}, where nothing answers (look at --admin-port)"
        return f": try --url {url}" if response.status_code in (200, 401, 403) else " (--admin-port)"

    async def _get(self, path: str) -> httpx.Response:
        with told_in_a_sentence(self.url):
            return await self._http.get(self.url + path)


def neighbour_of(url: str) -> str | None:
    """The same host at the next port; None if that URL has no port, or a path behind it."""
    parts = urlsplit(url)
    if parts.port is None or parts.port >= 65535 or parts.path:
        return None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port + 1}"
