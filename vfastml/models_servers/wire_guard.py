"""Keeps out who has no key: asked by libzmq for each connection, and by the link for each message."""

from __future__ import annotations

import logging
from collections.abc import Collection

import zmq
from zmq.utils import z85

from vfastml.engine import wire
from vfastml.engine.wire_keys import ServerKeys
from vfastml.utils.rare_warning import RareWarning

logger = logging.getLogger(__name__)

_VERSION = b"1.0"
_ADMITTED, _REFUSED = b"200", b"400"


class WireGuard:
    """Belongs to the link's I/O thread, which polls `socket`. Make it before the router is bound. Nobody comes in while
    it does not answer.

    libzmq does not end the session of a gateway whose key is taken off the list. But it says of each message whose key
    its sender has, so that nothing of such a session is read, and the link ends it.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys) -> None:
        self.socket = wire.open_zap(context)
        self._keys = keys
        self._senders: dict[bytes, bytes] = {}
        """The keys of those that have sent something, by their identity."""
        self._refused = RareWarning(logger)
        self._unreadable = RareWarning(logger)

    def answer(self) -> None:
        """To all that has been asked."""
        while True:
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                answer = self._answer_to(question)
            except Exception:  # a question without an answer would be the last one that is heard
                logger.exception("who asks to come in cannot be looked up: refused")
                answer = _refusal(question)
            self.socket.send_multipart(answer)

    def _answer_to(self, question: list[bytes]) -> list[bytes]:
        try:
            _version, request_id, _domain, address, _identity, mechanism, key = question
            user = z85.encode(key) if mechanism == b"CURVE" else b""
        except ValueError:
            # RFC 27: other mechanisms have other credentials; our router speaks none of them.
            return _refusal(question)
        self._refresh()
        name = self._keys.name_of(user)
        if name is None:
            self._refused.warn(
                "a gateway at %s was refused: its key is none of those in the folder of --wire-keys",
                address.decode("ascii", "replace"),
            )
            return _refusal(question)
        logger.debug("gateway %r has shown its key", name)
        return [_VERSION, request_id, _ADMITTED, b"", user, b""]

    def receive(self, router: zmq.Socket[bytes]) -> list[bytes]:
        """The next message, or nothing if its sender may not speak any more. Raises zmq.Again if there is none."""
        parts = router.recv_multipart(zmq.NOBLOCK, copy=False)
        sender = str(parts[-1].get("User-Id")).encode()
        if self._keys.name_of(sender) is None:
            return []
        message = [part.bytes for part in parts]
        self._senders[message[0]] = sender
        return message

    def revoked(self, known: Collection[bytes]) -> list[bytes]:
        """Those of the identities that are `known` to the link whose key is on the list no more. The others that it
        once heard are forgotten."""
        self._refresh()
        self._senders = {identity: key for identity, key in self._senders.items() if identity in known}
        return [identity for identity, key in self._senders.items() if self._keys.name_of(key) is None]

    def _refresh(self) -> None:
        self._keys.refresh()
        if self._keys.unreadable:
            self._unreadable.warn("%s: no certificate, so it lets nobody in", ", ".join(self._keys.unreadable))


def _refusal(question: list[bytes]) -> list[bytes]:
    return [_VERSION, *question[1:2], _REFUSED, b"", b"", b""]
