"""What tables call the methods of transformers. Apart, so that who only names them need not load torch."""

from __future__ import annotations

STATIC, CONTINUOUS = "generate", "generate_batch"
LABELS = {STATIC: "hf-generate", CONTINUOUS: "hf-batch"}
METHODS = {label: method for method, label in LABELS.items()}
