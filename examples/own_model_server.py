"""A model server with defaults of its own for every request.

Run `python examples/own_model_server.py`, beside a gateway.
"""

from __future__ import annotations

import sys

from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF

if __name__ == "__main__":
    model_server = TextGenerationModelServerHF(
        model_type="text_generation",
        model_uri="builtin:smollm2-135m-instruct",
        model_device="auto",
        model_forward_kwargs={"top_p": 0.9, "max_tokens": 200},
        rpc_port=int(sys.argv[1]) if sys.argv[1:] else 6500,
        log_level="debug",
    )
    model_server.run_forever()
