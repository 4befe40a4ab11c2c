"""Chaos: real processes under valid load, while a seed chooses what is done to them and to the network between them.

`python -m tests.chaos --seconds 60 --seed 1` ends with a table, and with status 1 if anything was lost, mixed up or
leaked.
"""
