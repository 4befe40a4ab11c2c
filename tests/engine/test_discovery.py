import pytest

from vfastml.engine.discovery import static_endpoints


def test_endpoints_keep_their_order():
    endpoints = ["tcp://127.0.0.1:6500", " tcp://model-0.models.svc:6500 ", "tcp://[::1]:6500", "ipc:///run/vfastml/a"]
    assert static_endpoints(endpoints) == tuple(endpoint.strip() for endpoint in endpoints)


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost:6500", "http://h:1", "tcp://h", "tcp://:1", "tcp://*:1", "tcp://h:0", "tcp://h:99999", "tcp://h:x",
     "tcp://h:1/path", "ipc://", "tcp://a:1,tcp://b:1"],
)  # fmt: skip
def test_malformed_endpoints_are_named(endpoint):
    with pytest.raises(ValueError, match="expected tcp://host:port"):
        static_endpoints([endpoint])


def test_none_or_twice():
    with pytest.raises(ValueError, match="no model server"):
        static_endpoints([])
    with pytest.raises(ValueError, match="twice: tcp://h:1"):
        static_endpoints(["tcp://h:1", "tcp://g:1", "tcp://h:1"])
