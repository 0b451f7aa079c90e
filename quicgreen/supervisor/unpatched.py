"""The standard library's own calls, also where gevent has put its own in their place.

A supervisor has no hub: what yields would make one, and a hub must not be there when workers are forked.
"""

from __future__ import annotations

import _socket
from typing import Any

from gevent import monkey

Socket = _socket.socket
"""The system's sockets alone: what the standard library adds, and gevent replaces, is not needed here."""

close: Any = monkey.get_original("os", "close")
fork: Any = monkey.get_original("os", "fork")
waitpid: Any = monkey.get_original("os", "waitpid")
poll: Any = monkey.get_original("select", "poll")
getaddrinfo: Any = monkey.get_original("socket", "getaddrinfo")
sleep: Any = monkey.get_original("time", "sleep")
signal: Any = monkey.get_original("signal", "signal")
