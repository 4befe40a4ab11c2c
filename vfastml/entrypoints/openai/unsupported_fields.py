"""Fields of the OpenAI, vLLM and SGLang dialects that would change the answer and that this server does not honour.

Left out of a request, null, or at a value that asks for nothing, they are accepted; anything else is refused by name.
Fields that appear neither here nor in a schema (`user`, `metadata`, `store`, ...) do not change the text: ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfastml.errors import UnsupportedError

NeutralValues = Mapping[str, tuple[Any, ...]]
"""Field name -> the values, besides null, that ask for nothing."""

_SAMPLING: NeutralValues = {
    "custom_logit_processor": (),
    "custom_params": ({},),
    "logits_processors": ([],),
    "no_stop_trim": (False,),
    "spaces_between_special_tokens": (True,),
    "stop_regex": ([], ""),
    "thinking_token_budget": (),
    "vllm_xargs": ({},),
}

_GRAMMARS: NeutralValues = {
    "ebnf": ("",),
    "guided_decoding_backend": (),
    "guided_json_object": (False,),
    "guided_whitespace_pattern": (),
    "json_schema": ({}, ""),
    "regex": ("",),
    "structural_tag": ({}, ""),
}

_PROMPT: NeutralValues = {
    "input_embeds": ([],),
    "lora_path": ([], ""),
    "prompt_embeds": ([],),
}

_REPORTING: NeutralValues = {
    "logprob_start_len": (-1,),
    "return_hidden_states": (False,),
    "return_logprob": (False,),
    "top_logprobs_num": (0,),
}

_TEMPLATE: NeutralValues = {
    "chat_template": ("",),
    "mm_processor_kwargs": ({},),
}

# The newer names are `tools` and `tool_choice`.
_FUNCTIONS: NeutralValues = {
    "function_call": ("none", "auto"),
    "functions": ([],),
}

# An empty `web_search_options` asks for a search, so {} is not neutral there.
_SERVICES: NeutralValues = {
    "audio": ({},),
    "modalities": (["text"], []),
    "moderation": ({},),
    "web_search_options": (),
}

_GENERATION: NeutralValues = {**_SAMPLING, **_GRAMMARS, **_PROMPT, **_REPORTING}

CHAT: NeutralValues = {
    **_GENERATION,
    **_TEMPLATE,
    **_FUNCTIONS,
    **_SERVICES,
    "add_special_tokens": (False,),
    "echo": (False,),
    "suffix": ("",),
}

COMPLETIONS: NeutralValues = {**_GENERATION}

# What the Responses API has under another name is there under that one only.
RESPONSES: NeutralValues = {
    **_GENERATION,
    **_TEMPLATE,
    **_FUNCTIONS,
    **_SERVICES,
    "add_special_tokens": (False,),
    "best_of": (1,),
    "context_management": ([],),
    "conversation": (),
    "echo": (False,),
    "include_reasoning": (True,),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "max_tokens": (),
    "messages": ([],),
    "n": (1,),
    "prompt": (),
    "prompt_logprobs": (False,),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "separate_reasoning": (True,),
    "suffix": ("",),
    "truncate_prompt_tokens": (),
}

TOKENIZE: NeutralValues = {
    **_TEMPLATE,
    **_FUNCTIONS,
    "return_token_strs": (False,),
    "truncate_prompt_tokens": (),
}


def refuse_unsupported(body: Mapping[str, Any], table: NeutralValues) -> None:
    """Raises UnsupportedError for the first field of `body` that asks for something in `table`."""
    for name, value in body.items():
        if name in table and not _is_neutral(value, table[name]):
            raise UnsupportedError(f"'{name}' with this value is not supported by this server.", param=name)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # False == 0 in Python, but `logprobs: 0` is a question and `logprobs: false` is not.
    return value is None or any(
        value == candidate and isinstance(value, bool) == isinstance(candidate, bool) for candidate in neutral
    )
