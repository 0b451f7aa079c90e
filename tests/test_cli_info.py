"""`quicgreen info`."""

from __future__ import annotations

from helpers.commands import complaint, run, run_process

import quicgreen
from quicgreen.cli.info import information


def test_info() -> None:
    result = run_process("info")
    assert (result.returncode, result.stderr) == (0, "")
    values = dict(line.split(" => ", 1) for line in result.stdout.splitlines())
    assert values["quicgreen.version"] == quicgreen.__version__
    assert values["udp.gso"] in ("yes", "no")
    assert values["transport.max_idle_ms"] == "30000"
    assert values.keys() == information().keys()


def test_info_of_one_key() -> None:
    result = run("info", "transport.max_idle_ms")
    assert (result.returncode, result.stdout, result.stderr) == (0, "30000\n", "")
    result = run("info", "no.such.key")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no.such.key" in complaint(result)
