"""How a peer's script begins: options from its command line, and one line that says where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Scripts are started by their path; what they share is found from the tests' folder.
sys.path[0] = str(Path(__file__).resolve().parent.parent)


def options() -> dict[str, Any]:
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def say(version: str, host: str, port: int) -> None:
    print(json.dumps({"version": version, "host": host, "port": port}), flush=True)
