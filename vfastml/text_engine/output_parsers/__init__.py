"""What a model's text says beside plain text: tool calls and reasoning."""
