"""What was written against the first VFastML runs as it was written: a model server, and gateways of two styles."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.program import Program
from tests.e2e.service import Service, free_port

MODEL = "mistralai/Mistral-7B-v0.1"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

MODEL_SERVER = """
from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF

model_server = TextGenerationModelServerHF(
    model_type='text_generation',
    model_uri='mistralai/Mistral-7B-v0.1',
    model_device='cuda:0',
    model_forward_kwargs={
        'top_p': 0.9,
    },
    log_level='debug',
)
model_server.run_forever()
"""

GATEWAY = """
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.api_server import FastMLServer as ml_server

@ml_server.app.post(path='/v1/chat/completions')
async def chat_completions(request: ChatCompletionsRequest):
    request_id = api_utils.gen_request_id('completions')

    selected_model = {
        'mistral': 'mistralai/Mistral-7B-v0.1',
        'phi2': 'microsoft/phi-2',
    }.get(request.model, 'mistralai/Mistral-7B-v0.1')

    dispatch_task = ml_server.dispatch_engine.dispatch(
        TextGenerationReq(
            request_id=request_id,
            model_uri=selected_model,
            model_adapter_uri=None,
            messages=request.messages))

    task_result = await dispatch_task.get_result()
    return api_utils.build_json_response(request_id, task_result)
"""

APP_GATEWAY = """
from vfastml.engine.dispatch_requests import TextGenerationForward, TextGenerationMessage, TextGenerationReq
from vfastml.entrypoints.api_server import FastMLServer as ml_server


@ml_server.app.post(path='/v1/chat/completions')
async def chat_completions(request: ChatCompletionsRequest):
    request_id = api_utils.gen_request_id('completions')

    if isinstance(request.messages, str):
        messages = request.messages
    else:
        messages = [TextGenerationMessage(msg.role, msg.content) for msg in request.messages]

    dispatch_task = ml_server.dispatch_engine.dispatch(
        TextGenerationReq(
            request_id=request_id,
            model_uri=request.model,
            model_adapter_uri=None,
            messages=messages,
            forward_params=TextGenerationForward(
                max_tokens=request.max_tokens,
                num_generations=request.n,
                seed=request.seed,
                temperature=request.temperature,
                top_p=request.top_p,
                stream=request.stream)))

    task_result = await dispatch_task.get_result()
    return api_utils.build_json_response(request_id, task_result)


@ml_server.app.post(path='/ask')
async def ask(question: str):
    request_id = api_utils.gen_request_id('ask')
    forward = TextGenerationForward(max_tokens=4, temperature=0.0)
    dispatch_task = ml_server.dispatch_engine.dispatch(
        TextGenerationReq(request_id=request_id, messages=question, forward_params=forward))
    return api_utils.build_json_response(request_id, await dispatch_task.get_result())


ml_server.configure(log_level='warn', dispatch_engine='async')
"""

WITH_PORT = """
import sys

from vfastml.models_servers.model_server import ModelServer

ModelServer.__init__.__kwdefaults__['rpc_port'] = int(sys.argv[1])
"""

IMPORTS = """
import vfastml.utils.api as api_utils
from prebuilt_apps.openai.api_interfaces import ChatCompletionsRequest
"""

RUN = """
import sys

ml_server.configure(model_servers=[f'tcp://127.0.0.1:{sys.argv[1]}'])
ml_server.run(host='127.0.0.1', port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache, laid out as the hub's library does, with a tiny random model under the name of the large one."""
    from transformers import MistralConfig, MistralForCausalLM

    from tests.tiny_models import SHAPE, save_model

    home = tmp_path_factory.mktemp("hub")
    # A short context bounds the answers of requests that give no bound.
    model = MistralForCausalLM(MistralConfig(**{**SHAPE, "max_position_embeddings": 192}))
    source = save_model(model, home / "made")
    repository = home / "models--mistralai--Mistral-7B-v0.1"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in source.iterdir():
        blob = file.rename(repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest())
        (snapshot / file.name).symlink_to(Path("../../blobs", blob.name))
    return home


@contextlib.contextmanager
def serving(folder: Path, gateway: str, rpc_port: int) -> Iterator[str]:
    """The URL of that gateway, once it is ready. It must end well."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = Program(folder, "gateway", IMPORTS + gateway + RUN, rpc_port, port)
    try:
        program.wait_ready(url)
        yield url
        program.end()
    finally:
        program.kill()


@pytest.fixture(scope="module")
def rpc_port(hub_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the first snippet's model server listens. It must end well."""
    port = free_port()
    text = WITH_PORT + MODEL_SERVER.replace("cuda:0", "cpu")
    folder = tmp_path_factory.mktemp("server")
    program = Program(folder, "model_server", text, port, HF_HUB_CACHE=str(hub_cache), HF_HUB_OFFLINE="1")
    try:
        yield port
        assert f"{MODEL} is ready" in program.end()
    finally:
        program.kill()


@pytest.fixture(scope="module")
def gateway(rpc_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("gateway"), GATEWAY, rpc_port) as url:
        yield url


@pytest.fixture(scope="module")
def app_gateway(rpc_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("app_gateway"), APP_GATEWAY, rpc_port) as url:
        yield url


def post(url: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(url, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_curl_gets_an_answer(gateway: str) -> None:
    body = json.dumps({"model": "mistral", "messages": [{"role": "user", "content": "Hello"}]})
    command = ["curl", "-sS", f"{gateway}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    answer = json.loads(output)
    assert answer["id"].startswith("completions-")
    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] == len("user: Hello\nassistant:")


@pytest.mark.parametrize("name", ["mistral", MODEL, "a-name-that-it-does-not-know"])
def test_openais_client_gets_an_answer(gateway: str, name: str) -> None:
    client = OpenAI(base_url=f"{gateway}/v1", api_key="unused", timeout=60)
    completion = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hello"}])
    assert completion.model == MODEL
    assert completion.usage is not None
    assert completion.usage.completion_tokens >= 1


def test_a_model_that_is_not_served_is_refused(gateway: str) -> None:
    answer = httpx.post(f"{gateway}/v1/chat/completions", json={"model": "phi2", "messages": "Hello"}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_built_in_routes_are_still_there(gateway: str) -> None:
    assert httpx.get(f"{gateway}/v1/models").json()["data"][0]["id"] == MODEL
    completion = post(f"{gateway}/v1/completions", model=MODEL, prompt="Hello", max_tokens=3)
    assert completion["object"] == "text_completion"


def test_messages_by_attributes_and_forward_params(app_gateway: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "n": 2, "seed": 5}
    first, second = (post(f"{app_gateway}/v1/chat/completions", **body, temperature=0.8, top_p=0.9) for _ in range(2))
    assert [choice["index"] for choice in first["choices"]] == [0, 1]
    assert first["choices"] == second["choices"]
    assert first["usage"]["completion_tokens"] <= 6
    assert post(f"{app_gateway}/v1/chat/completions", **body, stream=True)["choices"]


def test_a_string_is_one_message_of_the_user(app_gateway: str) -> None:
    greedy = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    of_list = post(f"{app_gateway}/v1/chat/completions", messages=[{"role": "user", "content": "Hello"}], **greedy)
    of_string = post(f"{app_gateway}/v1/chat/completions", messages="Hello", **greedy)
    asked = post(f"{app_gateway}/ask?question=Hello")
    assert of_list["choices"] == of_string["choices"] == asked["choices"]
    assert asked["usage"]["prompt_tokens"] == of_list["usage"]["prompt_tokens"]


def test_a_model_answers_to_its_name_its_alias_and_its_uri(tiny_service: Service, tiny_models: dict[str, Path]) -> None:
    as_list = [{"role": "user", "content": "Hello"}]
    for name in ("tiny", "llama", str(tiny_models["llama"])):
        bodies = [{"model": name, "messages": messages} for messages in ("Hello", as_list)]
        chats = [post(f"{tiny_service.url}/v1/chat/completions", **body, max_tokens=2) for body in bodies]
        assert [chat["model"] for chat in chats] == ["tiny", "tiny"]
        assert chats[0]["usage"]["prompt_tokens"] == chats[1]["usage"]["prompt_tokens"]
        tokenized = [post(f"{tiny_service.url}/tokenize", **body) for body in bodies]
        assert tokenized[0] == tokenized[1]
        assert tokenized[0]["count"] == chats[0]["usage"]["prompt_tokens"]
