"""The usage ledger: what each key has used, in a SQLite file, and quotas that are held against it."""
