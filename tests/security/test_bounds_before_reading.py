"""S4: what is at a limit is taken, what is one beyond it is refused, and a real gateway does not grow meanwhile."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import psutil
import pytest

from tests.entrypoints.running_gateway import Running, slow_gateway
from tests.security.raw_http import Answer, ask, post, with_length
from vfastml.entrypoints.http_protocol import MAX_HEAD_BYTES, MAX_HEADERS
from vfastml.entrypoints.limits import MAX_BODY_BYTES

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize")
MIB = 1 << 20
MOST_GROWTH = 64 * MIB
HELLO = b'{"prompt": "x", "max_tokens": 1}'


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    """A process of its own; its model is made up."""
    running = Running(slow_gateway(drain_timeout_s=1))
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture
def watched(gateway: Running) -> Iterator[Running]:
    """The gateway, which is the same process afterwards, answers, and has not grown."""
    for _ in range(3):  # what is bought once is not counted
        assert ask(gateway.url, [with_length("/v1/completions", HELLO)]).status == 200
        ask(gateway.url, [with_length("/v1/completions", b"x" * (8 * MIB))])
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    yield gateway
    assert process.memory_info().rss - before < MOST_GROWTH
    assert ask(gateway.url, [with_length("/v1/completions", HELLO)]).status == 200


def is_refused(answer: Answer, *statuses: int) -> bool:
    """With the envelope; its message is short whatever was sent."""
    error = json.loads(answer.body)["error"]
    return answer.status in statuses and len(answer.body) < 600 and isinstance(error["message"], str)


def head_of(num_bytes: int) -> bytes:
    """A whole request with so many bytes in its line and headers, as they are counted."""
    plain = [("content-length", str(len(HELLO)))]
    headers = [("host", "x"), ("connection", "close"), *plain]
    counted = len("/v1/completions") + sum(len(name) + len(value) + 4 for name, value in headers)
    return post("/v1/completions", [*plain, ("x", "a" * (num_bytes - counted - 5))], HELLO)


@pytest.mark.rule("S4")
def test_bytes_of_a_head(watched: Running) -> None:
    assert ask(watched.url, [head_of(MAX_HEAD_BYTES)]).status == 200
    assert is_refused(ask(watched.url, [head_of(MAX_HEAD_BYTES + 1)]), 431)


@pytest.mark.rule("S4")
@pytest.mark.parametrize("in_one_piece", [True, False])
def test_number_of_headers(watched: Running, in_one_piece: bool) -> None:
    for number, status in ((MAX_HEADERS, 200), (MAX_HEADERS + 1, 431), (10_000, 431)):
        extra = [(f"x{place}", "1") for place in range(number - 3)]
        request = with_length("/v1/completions", HELLO, *extra)
        pieces = [request] if in_one_piece else [request[at : at + 1000] for at in range(0, len(request), 1000)]
        answer = ask(watched.url, pieces)
        # what is still being sent when the connection is closed can take the answer with it
        assert answer.status == status or (number == 10_000 and answer.status == 0)


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", PATHS)
def test_bytes_of_a_body(watched: Running, path: str) -> None:
    largest = b"[" + b" " * (MAX_BODY_BYTES - 2) + b"]"
    assert is_refused(ask(watched.url, [with_length(path, largest)]), 400)  # it was read: it is no object
    assert ask(watched.url, [with_length(path, largest + b" ")]).status in (413, 0)
    only_said = post(path, [("content-length", str(MAX_BODY_BYTES + 1))])
    assert is_refused(ask(watched.url, [only_said]), 413)


def chunked(path: str, chunks: Iterator[bytes], *headers: tuple[str, str]) -> Iterator[bytes]:
    yield post(path, [("transfer-encoding", "chunked"), *headers])
    for chunk in chunks:
        yield b"%x\r\n%b\r\n" % (len(chunk), chunk)


@pytest.mark.rule("S4")
def test_chunks_without_end(watched: Running) -> None:
    sent = 0

    def spaces() -> Iterator[bytes]:
        nonlocal sent
        while sent < 20 * MAX_BODY_BYTES:
            sent += MIB
            yield b" " * MIB

    answer = ask(watched.url, chunked("/v1/completions", spaces()))
    assert answer.status in (413, 0)
    assert sent < 3 * MAX_BODY_BYTES


@pytest.mark.rule("S4")
@pytest.mark.parametrize("kind", ["trailer", "trailers", "extension"])
def test_what_belongs_to_no_body_is_bounded_too(watched: Running, kind: str) -> None:
    """Bytes within a body that are none of it, so that no count of the body sees them."""
    sent = 0
    begin, piece = {
        "trailer": (b"0\r\nx: ", b"a" * 65536),
        "trailers": (b"0\r\n", b"x: a\r\n" * 10_000),
        "extension": (b"1;x=", b"a" * 65536),
    }[kind]

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield post("/v1/completions", [("transfer-encoding", "chunked")])
        yield begin
        while sent < 256 * MIB:
            sent += len(piece)
            yield piece

    assert ask(watched.url, pieces()).status in (431, 0)
    assert sent < 64 * MIB  # what the kernel holds included


@pytest.mark.rule("S4")
def test_a_small_trailer_is_read_over(watched: Running) -> None:
    request = post("/v1/completions", [("transfer-encoding", "chunked")])
    body = b"%x\r\n%b\r\n0\r\nx-request-timeout: nonsense\r\n\r\n" % (len(HELLO), HELLO)
    assert ask(watched.url, [request + body]).status == 200


@pytest.mark.rule("S4")
@pytest.mark.parametrize("value", ["gzip", "GZIP", "br", "zstd", "deflate", "compress", "identity, gzip", "x"])
def test_a_compressed_body_is_refused_by_name(watched: Running, value: str) -> None:
    bomb = gzip.compress(b" " * (64 * MIB))
    answer = ask(watched.url, [with_length("/v1/completions", bomb, ("content-encoding", value))])
    assert is_refused(answer, 415)
    assert b"Content-Encoding" in answer.body


@pytest.mark.rule("S4")
def test_a_body_that_says_it_is_as_it_is(watched: Running) -> None:
    request = with_length("/v1/completions", HELLO, ("content-encoding", "identity"))
    assert ask(watched.url, [request]).status == 200


BODIES: dict[str, bytes] = {
    "deep": b'{"a": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "digits": b'{"prompt": "x", "seed": ' + b"9" * 5_000 + b"}",
    "many digits": b'{"prompt": "x", "seed": ' + b"9" * 5_000_000 + b"}",
    "digits behind the point": b'{"prompt": "x", "temperature": 0.' + b"9" * 5_000_000 + b"x}",
    "exponent": b'{"prompt": "x", "temperature": 1e999999999}',
    "NaN": b'{"prompt": "x", "temperature": NaN}',
    "Infinity": b'{"prompt": "x", "temperature": Infinity}',
    "half a character": b'{"prompt": "\\ud800"}',
    "half a character in a name": b'{"\\udfff": 1, "prompt": "x"}',
    "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
    "UTF-32": '{"prompt": "x"}'.encode("utf-32"),
    "Latin-1": '{"prompt": "é"}'.encode("latin-1"),
    "many names": b'{"prompt": "x", "logit_bias": {' + b",".join(b'"%d": 1' % n for n in range(300_000)) + b"}}",
    "many strings": json.dumps({"prompt": ["x"] * 1_000_000}).encode(),
    "many numbers": json.dumps({"prompt": [1] * 3_000_000}).encode(),
    "many lists": json.dumps({"prompt": [[]] * 2_000_000}).encode(),
    "many objects": b'{"messages": [' + b"{}," * 2_000_000 + b"{}]}",
}


@pytest.mark.rule("S4")
@pytest.mark.parametrize("name", BODIES)
def test_what_a_body_may_not_hold(watched: Running, name: str) -> None:
    assert is_refused(ask(watched.url, [with_length("/v1/completions", BODIES[name])]), 400)


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", PATHS)
def test_depth_has_a_limit_that_is_far_below_the_stacks(watched: Running, path: str) -> None:
    """At some depth it is refused for that alone, and never as a mistake of ours."""

    def answer(depth: int) -> Answer:
        return ask(watched.url, [with_length(path, b'{"no_such_field": ' + b"[" * depth + b"]" * depth + b"}")])

    assert b"not valid JSON" not in answer(50).body
    least, most = 50, 2000
    assert b"not valid JSON" in answer(most).body
    while most - least > 1:
        middle = (least + most) // 2
        found = answer(middle)
        assert found.status == 400
        least, most = (least, middle) if b"not valid JSON" in found.body else (middle, most)
    assert most <= 1000
