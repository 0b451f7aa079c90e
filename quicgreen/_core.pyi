"""The compiled module: cffi's two objects. Only `_engine`, `_group`, `_contexts` and `_frames` import it."""

from typing import Any

ffi: Any
lib: Any
