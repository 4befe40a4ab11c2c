"""A gateway as a process of its own whose libraries speak too: `log_words FORMAT`. Of a prompt that says `boom` the
model breaks, and other libraries' loggers tell lines that would be many."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, say_hello
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import InternalServerError

KEY = "key-canary"


def speak() -> None:
    for name in ("uvicorn.error", "asyncio", "somebody.else", "library.with.a.handler"):
        logging.getLogger(name).error("first line\nsecond line \x1b[31m")
    warnings.warn("a warning\nof two lines", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()


async def script(task: DispatchTask) -> None:
    assert isinstance(task.request, TextGenerationReq)
    if "boom" in (task.request.prompt or ""):
        speak()
        task.fail(InternalServerError())
    else:
        await say_hello(task)


if __name__ == "__main__":
    alone = logging.getLogger("library.with.a.handler")
    alone.addHandler(logging.StreamHandler())
    alone.propagate = False
    config = GatewayConfig(api_keys=(KEY,), log_level="debug", log_format=sys.argv[1], access_log="all")
    Gateway(config, FakeDispatchEngine(script)).run(port=0)
