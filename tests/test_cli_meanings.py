"""The meanings of `quicgreen explain`: every code has some."""

from __future__ import annotations

import pytest

from quicgreen import exceptions
from quicgreen.cli import meanings
from quicgreen.exceptions import H3_ERRORS, TRANSPORT_ERRORS


def test_every_name_has_words_and_no_other() -> None:
    assert set(meanings.CODES) == {n for n in vars(exceptions) if n.startswith("QUIC_ERROR_")}
    assert list(meanings.HTTP3) == list(H3_ERRORS.values())
    assert list(meanings.TRANSPORT) == list(TRANSPORT_ERRORS.values())
    warnings = {k for k, v in vars(exceptions).items() if isinstance(v, type) and issubclass(v, Warning)}
    assert set(meanings.WARNINGS) == warnings - {"QuicWarning"}


@pytest.mark.parametrize(
    "table", [meanings.CODES, meanings.HTTP3, meanings.TRANSPORT], ids=["codes", "h3", "quic"]
)
def test_they_say_what_and_what_next(table: dict[str, meanings.Meaning]) -> None:
    assert all(what and then for what, then in table.values())
    assert len({what for what, _ in table.values()}) >= len(table) - 1


def test_alerts_have_the_names_of_boringssl() -> None:
    """As far as it knows them: what our messages say is found again."""
    assert meanings.ALERTS[48][0] == "unknown_ca"
    assert all(0 <= number <= 0xFF for number in meanings.ALERTS)
    assert len({name for name, _, _ in meanings.ALERTS.values()}) == len(meanings.ALERTS)
