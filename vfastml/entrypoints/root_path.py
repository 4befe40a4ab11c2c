"""The prefix under which a proxy publishes the gateway: some take it off before they pass a request on, some do not."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPathMiddleware:
    """Makes requests of both kinds of proxy look alike: as ASGI has it, `path` begins with `root_path`. A server that
    has a root path of its own has done so already, and keeps it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not scope.get("root_path"):
            scope = {**scope, **self._paths(scope)}
        await self.app(scope, receive, send)

    def _paths(self, scope: Scope) -> Scope:
        if _is_below(scope["path"], self.root_path):
            return {"root_path": self.root_path}
        raw_path = self.root_path.encode() + (scope.get("raw_path") or b"")
        return {"root_path": self.root_path, "path": self.root_path + scope["path"], "raw_path": raw_path}


def route_path(scope: Scope) -> str:
    """The path as routes have it, without a prefix: what the router will see."""
    root_path, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root_path) :] if _is_below(path, root_path) else path


def _is_below(path: str, root_path: str) -> bool:
    return path == root_path or path.startswith(f"{root_path}/")
