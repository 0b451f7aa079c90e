"""The documentation's numbers for `session_mode`. Those of errors stand in `quicgreen.exceptions`."""

from __future__ import annotations

QUICPRO_SESSION_AUTO = 0
QUICPRO_SESSION_LIVE = 1
QUICPRO_SESSION_TICKET = 2
QUICPRO_SESSION_WARM = 3
QUICPRO_SESSION_SHM_LRU = 4
