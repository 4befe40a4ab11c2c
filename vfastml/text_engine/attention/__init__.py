"""Attention over the paged KV cache: one interface, several backends, `sdpa` the reference for all."""
