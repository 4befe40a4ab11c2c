"""Malformed input of every kind: properties for pytest, and a program that sends it to running processes."""
