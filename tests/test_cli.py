"""The command as a whole: how it is called, what breaks its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import QUICGREEN, Site, complaint, run, run_process

import quicgreen


def test_the_installed_command_is_the_module() -> None:
    script = Path(sys.executable).parent / "quicgreen"
    outs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], QUICGREEN)
    ]
    assert outs == [f"quicgreen {quicgreen.__version__}\n"] * 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["serve", "fetch", "ping", "tickets", "info", "explain", "--version"]),
        (
            ["serve"],
            ["MODULE:HANDLER", "--bind", "--certfile", "--no-patch", "--graceful-timeout", "--early-data"],
        ),
        (["fetch"], ["--insecure", "--cacert", "--output", "--connect-timeout", "--max-time", "--fail"]),
        (["fetch"], ["--ssl-sessions", "--no-sessionid", "--no-tls-earlydata"]),
        (["ping"], ["HOST[:PORT]", "--count", "--interval", "--insecure"]),
        (["tickets"], ["list", "show", "export", "import", "clear"]),
        (["tickets", "export"], ["KEY_OR_HOST", "--output", "--store"]),
        (["info"], ["key"]),
        (["explain"], ["CODE_OR_NAME"]),
    ],
)
def test_help(command: list[str], words: list[str]) -> None:
    result = run(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in words:
        assert word in result.stdout


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["fetch"], ["serve"], ["fetch", "--nonsense", "x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")


# ---------------------------------------------------------------- output that breaks


@pytest.mark.parametrize("command", ["fetch -k -s {url}/big", "fetch -k -i {url}/big", "info"])
def test_a_broken_pipe(site: Site, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run_process(*command.format(url=site.url).split(), stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (23, "")


@pytest.mark.parametrize("command", ["fetch -k {url}/big", "info", "info quicgreen.version"])
def test_a_full_disk(site: Site, command: str) -> None:
    with open("/dev/full", "wb") as full:
        result = run_process(*command.format(url=site.url).split(), stdout=full)
    assert result.returncode == 23
    assert "No space left" in complaint(result)
