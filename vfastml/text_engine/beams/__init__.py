"""Beam search: the most probable texts instead of one token after the other."""
