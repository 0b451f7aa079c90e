"""Where and with what it was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import gevent
from samples import say

import quicgreen
from quicgreen import _engine

_PACKAGES = ["gevent", "greenlet", "cffi", "hypercorn", "aioquic", "curl_cffi", "websockets", "locust"]

_NOISE = 0.1
"""Share of the cores that others may take before it is mentioned."""


def facts() -> dict[str, str]:
    """Versions, machine, date."""
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "quicgreen": f"{quicgreen.__version__}{_commit()}",
        "engine": _engine.build_info(),
        "loop": f"{type(gevent.get_hub().loop).__module__}, {gevent.get_hub().loop.backend}",
    }
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    folder = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return f" ({run.stdout.strip()})" if run.returncode == 0 else ""


def load() -> float:
    """Processes that wanted a core in the last minute, per core."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def mention_noise() -> None:
    if load() > _NOISE:
        say(f"bench: others use this machine (load {load():.2f} per core): expect wider spreads")
