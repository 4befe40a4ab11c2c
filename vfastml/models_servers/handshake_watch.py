"""Who has tried to connect to a model server in vain, for its log."""

from __future__ import annotations

import logging

import zmq
from zmq.utils.monitor import parse_monitor_message

from vfastml.engine.handshakes import FAILURES, HandshakeFailure, failure_of
from vfastml.utils.rare_warning import RareWarning

logger = logging.getLogger(__name__)

_WITH_KEYS = {
    HandshakeFailure.OTHER_MECHANISM: "a gateway without --wire-keys was refused",
    HandshakeFailure.OTHER_SERVER_KEY: "a connection was ended, as what came was not encrypted for this server: a "
    "gateway that has another server's server-NAME.key, or damage on the way",
    HandshakeFailure.HUNG_UP: "a connection ended before it had shown a key: a gateway without --wire-keys, or no "
    "gateway at all",
    HandshakeFailure.NO_PEER: "a connection was ended: what came was not of a gateway, or came twice",
}
"""A key that is not on the list is WireGuard's to tell."""
_WITHOUT_KEYS = {
    HandshakeFailure.OTHER_MECHANISM: "a gateway was refused that has --wire-keys: this server has none",
}


class HandshakeWatch:
    """Belongs to the link's I/O thread, which polls `socket`."""

    def __init__(self, router: zmq.Socket[bytes], *, has_keys: bool) -> None:
        self._router = router
        self.socket: zmq.Socket[bytes] = router.get_monitor_socket(FAILURES)
        self._told = _WITH_KEYS if has_keys else _WITHOUT_KEYS
        self._failures = {failure: RareWarning(logger) for failure in self._told}

    def read(self) -> None:
        """Everything that has happened."""
        while True:
            try:
                event = parse_monitor_message(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            failure = failure_of(event["event"], event["value"])
            if failure in self._told:
                self._failures[failure].warn("%s", self._told[failure])

    def close(self) -> None:
        """Before the router is closed; libzmq would wait for who does not read."""
        self._router.disable_monitor()
        self.socket.close(linger=0)
