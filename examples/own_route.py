"""A gateway with a route of your own. It takes the place of the built-in one; all the others are still there.

Run `python examples/own_route.py`, beside a model server.
"""

from __future__ import annotations

import sys

from fastapi import Response

import vfastml.utils.api as api_utils
from prebuilt_apps.openai.api_interfaces import ChatCompletionsRequest
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.api_server import FastMLServer as ml_server

selected_model = "smollm2-135m-instruct"


@ml_server.app.post(path="/v1/chat/completions")
async def chat_completions(request: ChatCompletionsRequest) -> Response:
    """Always the same model, whatever the client names."""
    request_id = api_utils.gen_request_id("completions")
    dispatch_task = ml_server.dispatch_engine.dispatch(
        TextGenerationReq(
            request_id=request_id, model_uri=selected_model, model_adapter_uri=None, messages=request.messages
        )
    )
    task_result = await dispatch_task.get_result()
    return api_utils.build_json_response(request_id, task_result)


if __name__ == "__main__":
    port, model_server = sys.argv[1:] or ("8080", "tcp://127.0.0.1:6500")
    ml_server.configure(model_servers=[model_server])
    ml_server.run(port=int(port))
