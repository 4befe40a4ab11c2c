"""The thirteen rules of docs/security.md, and the tests that prove them, wherever in tests/ they are."""
