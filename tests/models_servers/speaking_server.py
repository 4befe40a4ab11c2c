"""A model server that breaks at each request and speaks about it, in JSON: `speaking_server PORT`."""

from __future__ import annotations

import logging
import sys

from tests.models_servers.stub_server import Silent
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.models_servers.inbox import Work


class Speaking(Silent):
    """Breaks in `prepare` where the prompt says so, else in `accept`."""

    def prepare(self, request: WorkReq) -> Work:
        assert isinstance(request, TextGenerationReq)
        logging.getLogger("some.tokenizer").warning("this text is long\nand odd")
        if request.prompt == "prepare":
            raise ValueError("no way\u2028\x1b[2J")
        return super().prepare(request)

    def accept(self, work: Work) -> None:
        raise ValueError("out of cheese")


if __name__ == "__main__":
    Speaking("text_generation", "stub", rpc_port=int(sys.argv[1]), log_format="json").run_forever()
