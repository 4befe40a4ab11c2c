"""Server-sent events, however they are cut into pieces."""

from __future__ import annotations


class EventParser:
    """Bytes in, the data of whole events out.

    Lines may end in LF, CR LF or CR; comments and other fields are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece has completed."""
        if self._after_cr and piece.startswith(b"\n"):  # a CR LF that was cut in two
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r") if piece else False
        lines = (self._rest + piece).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        return [event for line in lines if (event := self._take(line.rstrip(b"\r\n"))) is not None]

    def _take(self, line: bytes) -> bytes | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        event = b"\n".join(self._data) if self._data else None
        self._data = []
        return event
