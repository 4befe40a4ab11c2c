"""A gateway with a route of your own. It takes the place of the built-in one; all the others are still there.

Run `python examples/own_route.py`, in another shell a model server, such as `python examples/own_model_server.py`, and
call it: `curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{"messages": "Hi!"}'`.
"""

from __future__ import annotations

import argparse

from fastapi import Response

from prebuilt_apps.openai.api_interfaces import ChatCompletionsRequest
from vfastml.entrypoints.api_server import FastMLServer as ml_server
from vfastml.errors import UnsupportedError
from vfastml.utils.api import build_json_response, gen_request_id

selected_model = "smollm2-135m-instruct"


@ml_server.app.post(path="/v1/chat/completions")
async def chat_completions(request: ChatCompletionsRequest) -> Response:
    """Always the same model, whatever the client names. All else that it asks for reaches the model."""
    if request.stream:
        raise UnsupportedError("'stream' is not supported by this route.", param="stream")
    request_id = gen_request_id("chatcmpl")
    to_selected_model = request.model_copy(update={"model": selected_model})
    work = to_selected_model.to_work(request_id)
    result = await ml_server.dispatch_engine.dispatch(work).get_result()
    return build_json_response(request_id, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A gateway whose chats all go to one model.")
    parser.add_argument("port", nargs="?", type=int, default=8080, help="for HTTP (default: 8080)")
    parser.add_argument(
        "model_server", nargs="?", default="tcp://127.0.0.1:6500", help="its address (default: tcp://127.0.0.1:6500)"
    )
    args = parser.parse_args()
    ml_server.configure(model_servers=[args.model_server])
    ml_server.run(port=args.port)
