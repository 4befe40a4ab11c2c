"""How a model's layers are run over a packed batch."""
