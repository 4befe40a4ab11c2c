"""Text for many prompts at once, in your own process: no gateway, no model server.

Run `python examples/offline.py`, or `python examples/offline.py "Once upon a time" "The moon is"`.
"""

from __future__ import annotations

import argparse

from vfastml import LLM, SamplingParams

PROMPTS = ["One, two, three,", "The sun rises in the", "Roses are red,"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Goes on with each prompt, and then answers a question.")
    parser.add_argument("prompts", nargs="*", default=PROMPTS, metavar="PROMPT", help="texts to go on with")
    parser.add_argument("--model-uri", default="builtin:smollm2-135m-instruct", help="(default: %(default)s)")
    args = parser.parse_args()
    llm = LLM(args.model_uri)
    params = SamplingParams(max_tokens=16, temperature=0)
    for prompt, result in zip(args.prompts, llm.generate(args.prompts, params), strict=True):
        print(f"{prompt} -> {result.text!r}")
    question = "What is the capital of France?"
    [answer] = llm.chat([{"role": "user", "content": question}], params)
    print(f"{question} -> {answer.text!r}")
