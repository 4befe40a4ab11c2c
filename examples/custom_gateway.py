"""HTTP in front of custom_server.py: a route, and the request that it sends to the model. When both run:
`curl http://127.0.0.1:8081/v1/sentiment -H 'Content-Type: application/json' -d '{"text": "I love it"}'`"""

from fastapi import Response
from pydantic import BaseModel

from vfastml import FastMLServer, OneShotReq
from vfastml.utils.api import build_json_response, gen_request_id


class Review(BaseModel):
    text: str


@FastMLServer.app.post("/v1/sentiment")
async def sentiment(review: Review) -> Response:
    request_id = gen_request_id("sentiment")
    task = FastMLServer.dispatch_engine.dispatch(OneShotReq(request_id=request_id, inputs=review.text))
    return build_json_response(request_id, await task.get_result())


if __name__ == "__main__":
    FastMLServer.configure(model_servers=["tcp://127.0.0.1:6501"])
    FastMLServer.run(port=8081)
