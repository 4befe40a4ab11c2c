"""How much of anything a request may hold. Each bound is checked before the work it bounds."""

from __future__ import annotations

import re

MAX_BODY_BYTES = 16 << 20
MAX_MESSAGES = 4096
MAX_CONTENT_PARTS = 4096
MAX_PROMPTS = 128
MAX_PROMPT_TOKENS = 1 << 20
"""Token ids in one prompt, or to detokenize; far more than any model's context."""
MAX_CHOICES = 128
MAX_TOTAL_CHOICES = 256
"""Prompts times n, best_of or beam_width."""
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024
MAX_ALLOWED_TOKENS = 1 << 18
"""Entries of allowed_token_ids: the largest vocabularies have as many."""
MAX_TOOLS = 128
MAX_CONSTRAINT_CHOICES = 10_000
MAX_STRUCTURAL_TAGS = 128
"""Structures of one structural tag, and its triggers."""
MAX_OBJECT_ENTRIES = 4096
"""Of an object that is passed on as it is: a schema, the arguments of a call, a document."""
MAX_INCLUDED = 16
"""Entries of a response's include, of which there are half as many kinds."""
MAX_DOCUMENTS = 128
MAX_TEMPLATE_KWARGS = 32
MAX_EFFORT_CHARS = 32
MAX_NAME_CHARS = 512
"""Model names, cache salts."""
MAX_METADATA = 16
"""Entries of a response's metadata, and the length of their names and values."""
MAX_METADATA_NAME_CHARS = 64
MAX_METADATA_CHARS = 512
MAX_STORED_RESPONSES = 16384
MAX_STORED_BYTES = 256 << 20
"""Of all stored responses, with the conversations that they go on from."""
MAX_BACKGROUND = 512
"""Responses under way in the background."""
MAX_BACKGROUND_BYTES = 256 << 20
"""Of their requests' bodies, and of the conversations that they go on from."""
MAX_EVENT_LOG_BYTES = 2 << 20
"""Of what is kept of the stream of one of them."""
MAX_UNREAD_LOG_BYTES = 16 << 20
"""Of the same, while somebody who reads it is behind."""

MAX_DEADLINE_S = 86400
"""Of a request; a day."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a client may call its request."""

BODY_TIMEOUT_S = 20.0
"""Silence within a body that is waited for, unless a gateway is told otherwise."""
