"""How uvicorn is set up, for the listener that clients see and for that of the operator."""

from __future__ import annotations

import logging
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from vfastml.entrypoints.http_protocol import ConnectionBounds, bounded_protocol

_IDLE_CONNECTION_S = 75
"""Longer than the 60 s of common load balancers, so that we never close a connection that they are about to use."""
LAST_WORDS_S = 1
"""For responses to get out once their requests have been failed."""


def uvicorn_config(app: ASGIApp, bounds: ConnectionBounds, *, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    """`lifespan` is `on` for the one app that starts and stops what this process serves."""
    # Its warnings are about what clients send: they would fill the log as clients please.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(bounds),
        ws="none",
        lifespan=lifespan,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_IDLE_CONNECTION_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
