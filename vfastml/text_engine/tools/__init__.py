"""Functions that a model may call: how they are described to it, what its calls look like, and how it is kept to
them."""
