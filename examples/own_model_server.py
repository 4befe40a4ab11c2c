"""A model server with defaults of its own: what a request does not ask for is taken from `model_forward_kwargs`.

Run `python examples/own_model_server.py`, and in another shell a gateway, such as `python examples/own_route.py`.
"""

from __future__ import annotations

import argparse

from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A text model server with defaults of its own.")
    parser.add_argument("rpc_port", nargs="?", type=int, default=6500, help="where gateways connect (default: 6500)")
    args = parser.parse_args()
    model_server = TextGenerationModelServerHF(
        model_type="text_generation",
        model_uri="builtin:smollm2-135m-instruct",  # or a folder, a .gguf file, or a hub id such as org/name
        model_device="auto",
        model_forward_kwargs={"top_p": 0.9, "max_tokens": 200},
        rpc_port=args.rpc_port,
        log_level="debug",
    )
    model_server.run_forever()
