"""The compiled module: cffi's two objects. Only `_engine` imports it."""

from typing import Any

ffi: Any
lib: Any
