"""What a model server says of itself when it is ready."""

from __future__ import annotations

from pathlib import Path

from tests.models_servers.stub_server import Silent
from tests.models_servers.test_text_server_prepare import make_server
from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.wire import decode_reply, encode_reply


def test_hello_of_a_text_server(tiny_models: dict[str, Path]) -> None:
    server = make_server(tiny_models["llama"])
    server.load()
    hello = server._hello()
    assert (hello.device, hello.dtype, hello.decoder) == ("cpu", "float32", server._loaded.decoder)
    assert hello.decoder
    assert hello.limits == server._loaded.limits
    assert decode_reply(encode_reply(hello)) == hello


def test_hello_of_a_server_that_computes_no_text() -> None:
    hello = Silent("silent", "silent")._hello()
    assert (hello.limits, hello.decoder) == (Limits(), "")
