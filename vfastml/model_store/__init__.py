"""Model uri to local folder: `builtin:NAME`, a folder, a `.gguf` file, or a hub id."""

from vfastml.model_store.cache import profiles_folder
from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.progress import Progress
from vfastml.model_store.resolve import StoredModel, resolve_model
from vfastml.model_store.uri import DEFAULT_MODEL

__all__ = ["DEFAULT_MODEL", "ModelStoreError", "Progress", "StoredModel", "profiles_folder", "resolve_model"]
