"""The application: a name, MODULE:HANDLER, and the callable that it stands for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from ..exceptions import error

Handler = Callable[[Any], Any]


def split(name: str) -> tuple[str, str]:
    """(module, attribute).

    Raises:
        QuicServerException: the name is not of that form.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise error("application", f"{name!r} is not of the form MODULE:HANDLER")
    return module, attribute


def load(name: str) -> Handler:
    """Import it, from the current folder first.

    Raises:
        QuicServerException: there is no such module, or no such callable in it. What the module itself raises
            passes: its author wants the traceback.
    """
    module, attribute = split(name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module}.".startswith(f"{e.name}."):
            raise
        raise error("application", f"no module named {e.name!r} here") from None
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise error("application", f"{module} has no callable {attribute!r}")
    handler: Handler = found
    return handler
