"""A supervisor and its workers: several processes that serve one UDP port.

It forks them, looks after them, replaces them (on HUP, after a crash, when they hang or have served enough)
and never serves itself.
"""

from .arbiter import Supervisor
from .config import Settings

__all__ = ["Settings", "Supervisor"]
