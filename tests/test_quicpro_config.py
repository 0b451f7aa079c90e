"""Config: names, kinds, and what they become."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from quicgreen.configuration import QuicConfiguration
from quicgreen.quicpro import (
    QUICPRO_SESSION_TICKET,
    Config,
    QuicClientException,
    QuicWarningDeprecatedFeature,
    QuicWarningInvalidParameters,
)
from quicgreen.quicpro.options import ALIASES, OPTIONS, UNAVAILABLE

WRONG = {
    "cert_file": [1, "", "a\0b"],
    "alpn": [[], [1], ["x" * 256], 3],
    "session_cache": ["yes", 1],
    "session_mode": [5, "auto matic", -1, True],
    "max_idle_ms": [0, -1, "30000", 1.5, True],
    "shm_size": [1, "big"],
    "busy_poll": [-1, 2_000_000, "50"],
    "verify_peer": [0, "false"],
    "early_data_methods": ["GET", [1], ["get"]],
    "initial_max_data": [1 << 30],
    "cc_algorithm": ["vegas", 1],
    "send_capacity_factor": [0, "1", True],
    "max_udp_payload_size": [1199, 65528],
    "max_body_bytes": [0],
    "xdp": [1, ""],
}


def test_a_mapping_names_or_both() -> None:
    assert Config.new({"max_idle_ms": 1}, alpn="h3") == {"max_idle_ms": 1, "alpn": ("h3",)}
    assert Config(max_idle_ms=1) == Config.new({"max_idle_ms": 1})
    assert Config.new() == Config.new({"max_idle_ms": None}) == {}
    config = Config.new(max_idle_ms=5)
    assert Config.of(config) is config
    assert "max_idle_ms" in repr(config)


def test_defaults() -> None:
    config = Config.new()
    assert config.get("alpn") == ("h3",)
    assert config.get("max_body_bytes") == 64 << 20
    assert config.get("nothing") is None
    assert config.get("nothing", 3) == 3
    assert config.client_tls().verify is True


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_wrong_value_raises(name: str, value: Any) -> None:
    with pytest.raises(QuicClientException, match=re.escape(f"{name} is ")):
        Config.new({name: value})


def test_an_unknown_name_warns_and_guesses() -> None:
    with pytest.warns(QuicWarningInvalidParameters, match="did you mean max_idle_ms") as caught:
        config = Config.new({"max_idl_ms": 5, "alpn": ["h3"]})
    assert config == {"alpn": ("h3",)}
    assert caught[0].filename == __file__
    with pytest.warns(QuicWarningInvalidParameters, match="lists them"):
        Config.new({3: 5})  # type: ignore[dict-item]


@pytest.mark.parametrize(("old", "name"), ALIASES.items())
def test_an_old_name_warns_and_counts(old: str, name: str) -> None:
    value: Any = {"max_idle_ms": 5, "verify_peer": False}.get(name, "x.pem")
    with pytest.warns(QuicWarningDeprecatedFeature, match=f"{old} is called {name} now"):
        assert Config.new({old: value}) == {name: value}
    with pytest.warns(QuicWarningDeprecatedFeature), pytest.raises(QuicClientException, match="the same"):
        Config.new({old: value, name: value})


@pytest.mark.parametrize("name", UNAVAILABLE)
def test_what_cannot_be_had_says_why(name: str) -> None:
    accepted, reason = UNAVAILABLE[name]
    assert Config.new({name: accepted}) == {}
    with pytest.raises(QuicClientException, match=re.escape(reason[:20])):
        Config.new({name: True if accepted is False else 4096})


@pytest.mark.parametrize("options", [[("alpn", "h3")], "alpn", 1])
def test_options_are_a_mapping(options: Any) -> None:
    with pytest.raises(QuicClientException, match="a mapping or a Config"):
        Config.new(options)


def test_every_transport_setting_can_be_given() -> None:
    there = {f.name for f in dataclasses.fields(QuicConfiguration)}
    assert there <= OPTIONS.keys()
    config = Config.new(max_idle_ms=1, hystart=False, cc_algorithm="reno", alpn="h3")
    assert config.transport() == QuicConfiguration(max_idle_ms=1, hystart=False, cc_algorithm="reno")


def test_every_setting_of_the_documentation_is_known() -> None:
    wanted = """
        cert_file key_file alpn session_cache session_mode max_idle_ms shm_size shm_path busy_poll xdp ca_file
        ca_path verify_peer server_name ticket_key_file ticket_key_rotate_s early_data early_data_methods
        retry_token connect_timeout_ms handshake_timeout_ms slow_handshake_ms initial_max_data
        initial_max_stream_data_bidi_local initial_max_stream_data_bidi_remote initial_max_stream_data_uni
        initial_max_streams_bidi initial_max_streams_uni max_connection_window max_stream_window
        max_recv_udp_payload_size cc_algorithm pacing hystart enable_dgram disable_active_migration
        max_field_section_size qpack_max_table_capacity qpack_blocked_streams extended_connect grease
        keylog_file alt_svc_ma
    """.split()  # noqa: SIM905 - a list of forty would fill the page
    assert set(wanted) <= OPTIONS.keys() | UNAVAILABLE.keys()


def test_trust(tmp_path: Path) -> None:
    assert Config.new(verify_peer=False, ca_file="x").client_tls().verify is False
    assert Config.new(ca_file="x.pem").client_tls().verify == "x.pem"
    assert Config.new(ca_path=tmp_path).client_tls().verify == str(tmp_path)
    with pytest.raises(QuicClientException, match="exclude each other"):
        Config.new(ca_file="x", ca_path="y").client_tls()


def test_a_server_asks_for_certificates_only_when_told_so() -> None:
    files = {"cert_file": "c.pem", "ca_file": "ca.pem"}
    assert Config.new(files).server_tls().ca_certs is None
    assert Config.new(files, verify_peer=True).server_tls().ca_certs == "ca.pem"
    assert Config.new(files, keylog_file="keys").server_tls().keylog_file == "keys"
    with pytest.raises(QuicClientException, match="needs cert_file"):
        Config.new().server_tls()
    with pytest.raises(QuicClientException, match="needs ca_file"):
        Config.new(cert_file="c", verify_peer=True).server_tls()


def test_times() -> None:
    limit = Config.new(connect_timeout_ms=1500, read_timeout_ms=2500, write_timeout_ms=3500).timeout()
    assert (limit.connect, limit.read, limit.write, limit.pool) == (1.5, 2.5, 3.5, 2.5)
    assert Config.new().timeout().write == 60


def test_stores() -> None:
    config = Config.new(shm_size=131072, shm_path="/ring", session_mode=QUICPRO_SESSION_TICKET)
    assert config.stores() == {"shm_size": 131072, "shm_path": "/ring", "session_mode": 2}


def test_a_setting_for_the_other_side_is_warned_of() -> None:
    with pytest.warns(QuicWarningInvalidParameters, match="connect_timeout_ms does nothing here"):
        Config.new(connect_timeout_ms=1).warn_of("server")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Config.new(connect_timeout_ms=1, alpn="h3").warn_of("client")
