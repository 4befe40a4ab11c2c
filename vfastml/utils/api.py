"""What the author of a route needs: an id for the request, and the response for what came back.

This sits on top of the entrypoints; nothing below imports it.
"""

from __future__ import annotations

from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.http_errors import error_response
from vfastml.entrypoints.openai.json_response import build_json_response

__all__ = ["build_json_response", "error_response", "gen_request_id"]
