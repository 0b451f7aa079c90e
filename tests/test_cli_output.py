"""What commands say, and how they end."""

from __future__ import annotations

import subprocess
import sys

from quicgreen.cli import output
from quicgreen.exceptions import CAUSES, error


def test_exit_codes_are_of_causes_that_there_are() -> None:
    assert set(output.EXIT_CODES) <= set(CAUSES)
    assert output.exit_code(error("certificate")) == 60
    assert output.exit_code(error("engine")) == output.EXIT_OTHER


def test_advice_is_for_who_types_commands() -> None:
    text = output.words(error("certificate", "self-signed"))
    assert "self-signed" in text
    assert "--cacert" in text
    assert CAUSES["certificate"].advice not in text
    assert CAUSES["engine"].advice in output.words(error("engine"))


def test_our_warnings_are_shown_once_and_others_as_ever() -> None:
    """Ours also where all warnings are errors: a command is no program to be tested."""
    code = """
import warnings
from quicgreen.cli import output
from quicgreen.exceptions import QuicWarningTicketStore
with output.warnings_to(output.warn):
    for text in ("a", "b", "a"):
        warnings.warn(text, QuicWarningTicketStore)
    warnings.warn("of somebody")
"""
    for action, status, others in (("always", 0, "UserWarning: of somebody"), ("error", 1, "Traceback")):
        run = subprocess.run([sys.executable, "-W", action, "-c", code], capture_output=True, text=True)
        assert run.returncode == status
        assert run.stderr.startswith("quicgreen: warning: a\nquicgreen: warning: b\n")
        assert others in run.stderr.split("b\n", 1)[1]
