"""What VFastML promises about security, in thirteen rules. Tests are marked with the names of those that they prove."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    name: str
    title: str
    statement: str


RULES = (
    Rule(
        "S1",
        "Nothing that is read can run",
        "Messages are typed structs in msgpack, tensors are a dtype of a list, a shape and exactly the bytes that "
        "they need, weights are safetensors (or a GGUF file that the operator names). There is no pickle and "
        "nothing built on it, no eval, no YAML, no archive of Python objects, anywhere. Any bytes on any socket "
        "end in a refusal.",
    ),
    Rule(
        "S2",
        "The wire is private",
        "Between gateway and model server there is a socket in a folder of the owner's, the machine's own "
        "loopback, or CURVE with a list of known keys. A wide address without keys does not start.",
    ),
    Rule(
        "S3",
        "Every route asks for a key",
        "Keys are checked on the raw path before anything else, all paths but a short list of probes ask for one, "
        "and what operators need listens elsewhere. Keys are compared as digests, in constant time. The default "
        "address is loopback.",
    ),
    Rule(
        "S4",
        "Bounded before it is read",
        "Headers, body, depth, lists, strings and numbers have limits that are checked before the work that they "
        "bound, however the bytes arrive. One byte more is 400, 413, 415 or 431, and the process does not grow.",
    ),
    Rule(
        "S5",
        "Every amplifier is bounded",
        "Choices, beams, log probabilities, stop strings, tools, prompts and tokens have limits each, and what "
        "they multiply to has one as well. It is checked when a request comes in. All numbers are finite.",
    ),
    Rule(
        "S6",
        "Requests bring no code",
        "No chat template, processor or program comes with a request. The operator's templates run in a sandbox "
        "with a bound on time and size. Schemas, grammars and patterns are compiled within bounds; a bomb is a "
        "400 and harms nobody else.",
    ),
    Rule(
        "S7",
        "Requests fetch nothing",
        "No address and no path in a request is ever opened, whatever its spelling and wherever it stands.",
    ),
    Rule(
        "S8",
        "Media are bounded before they are decoded",
        "Bytes, pixels, frames, samples and channels are counted from what a file says of itself and again while "
        "it is decoded; formats are found by content and come from a list.",
    ),
    Rule(
        "S9",
        "A model is data",
        "A model comes from where the operator says, in the revision that was named, for all of its files. Code "
        "beside it is never loaded, `trust_remote_code` is nowhere, pickled weights are refused. No check is an "
        "`assert`.",
    ),
    Rule(
        "S10",
        "Errors and logs tell nothing and carry nothing",
        "Errors have fixed forms: no paths, addresses, traces, texts of libraries, and nothing of what was sent. "
        "Logs have no prompts and no keys, and what a client chose cannot make a line of its own.",
    ),
    Rule(
        "S11",
        "Tenants do not meet in a cache",
        "Blocks of the prefix cache are found under a salt that the gateway makes of the key, and by comparing "
        "the tokens. No request sees memory that another has left.",
    ),
    Rule(
        "S12",
        "A model server survives any request",
        "What a request breaks is that request. If the model itself breaks, the process ends with a status that "
        "says so, and is started again.",
    ),
    Rule(
        "S13",
        "Dependencies are known",
        "Every version is pinned, there is one index, and a list of floors keeps versions with known holes out.",
    ),
)
