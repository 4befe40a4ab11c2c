"""What a text server's queue counts. Nothing is loaded."""

from __future__ import annotations

import pytest

from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.errors import RateLimitError
from vfastml.models_servers.inbox import SizedWork
from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.sampling import Sampling


def test_a_request_may_come_to_its_prompt_and_the_answers_of_all_its_choices() -> None:
    request = TextGenerationReq(request_id="a", prompt="abc")
    work = EncodedRequest(request, [1, 2, 3], Sampling(max_tokens=10), num_choices=4)
    assert isinstance(work, SizedWork)
    assert work.num_tokens == 3 + 4 * 10


def test_bounds_are_those_that_were_asked_for() -> None:
    server = TextGenerationModelServerHF(max_waiting=1, max_waiting_tokens=10)
    admission = server._link.admission
    admission.size_for(1)
    admission.enter("runs", 1, 1000)
    admission.enter("waits", 1, 10)
    with pytest.raises(RateLimitError):
        admission.enter("too many", 1, 0)
    admission.leave("waits")
    with pytest.raises(RateLimitError):
        admission.enter("too long", 1, 11)
