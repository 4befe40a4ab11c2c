"""Any model as a service: `load` it once, and let `forward` turn a list of inputs into a list of outputs.
Run `python examples/custom_server.py`, and in another shell `python examples/custom_gateway.py`, to call it by HTTP."""

import torch

from vfastml import OneShotModelServer


class Sentiment(OneShotModelServer):
    def load(self) -> None:
        self.weights = {"good": 1.0, "great": 2.0, "love": 2.0, "bad": -1.0, "awful": -2.0, "hate": -2.0}

    def forward(self, inputs: list[str]) -> list[float]:
        scores = [sum(self.weights.get(word, 0.0) for word in text.lower().split()) for text in inputs]
        return torch.tensor(scores, device=self.device).sigmoid().tolist()


if __name__ == "__main__":
    Sentiment(model_type="sentiment", model_uri="sentiment", rpc_port=6501).run_forever()
