from __future__ import annotations

import os
from typing import Any

import pytest
from support import ROOT, certificate
from test__engine import Pair

from quicgreen import (
    ClientTls,
    QuicClientException,
    QuicConfiguration,
    QuicException,
    ServerTls,
    _contexts,
)
from quicgreen._contexts import Configuration, Keys
from quicgreen._engine import ffi, lib
from quicgreen.exceptions import QuicServerException

HEADER = (ROOT / "cext" / "include" / "quicgreen.h").read_text()
TOKEN, LISTENER = 7, 9


def test_settings_have_the_engines_names() -> None:
    for is_server in (False, True):
        defaults = _contexts.config_defaults(is_server)
        assert defaults["cc_algorithm"] == "cubic"
        assert all(value is not None for value in defaults.values())


# ---------------------------------------------------------------- settings, certificates, keys


@pytest.mark.parametrize(
    "options",
    [
        {"cc_algorithm": "none"},
        {"max_udp_payload_size": 100},
        {"initial_max_data": -1},
        {"initial_max_data": "much"},
        {"max_stream_window": 1 << 31},
        {"max_field_section_size": 1 << 30},
        {"max_idle_ms": 1 << 70},
        {"send_capacity_factor": "x"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(QuicClientException, match="wrong argument"):
        Configuration(ClientTls(verify=False), QuicConfiguration(**options))


@pytest.mark.parametrize("alpn", [(), ("",), ("x" * 256,)])
def test_protocols_that_cannot_be_are_refused(alpn: tuple[str, ...]) -> None:
    with pytest.raises(QuicClientException, match="application protocols"):
        Configuration(ClientTls(verify=False, alpn=alpn), QuicConfiguration())


def test_anything_but_h3_makes_raw_streams() -> None:
    assert not Configuration(ClientTls(verify=False, alpn=("h3",)), QuicConfiguration()).raw
    assert not Configuration(ClientTls(verify=False, alpn=("x", "h3")), QuicConfiguration()).raw
    assert Configuration(ClientTls(verify=False, alpn=("x",)), QuicConfiguration()).raw


def pem(text: str, name: str) -> str:
    return text.replace("-----END", f"{name}-----END", 1)


CERT, KEY = certificate()
OTHER_CERT, OTHER_KEY = _contexts.self_signed("other.test")


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({}, "a server needs a certificate"),
        ({"cert_pem": CERT}, "cannot use the private key: there is none in it, in PEM"),
        ({"key_pem": KEY}, "a server needs a certificate"),
        ({"cert_pem": CERT, "key_pem": OTHER_KEY}, "the private key: it belongs to another certificate"),
        ({"cert_pem": pem(CERT, "AAAA"), "key_pem": KEY}, "cannot use the certificate"),
        ({"cert_pem": CERT, "key_pem": "no key"}, "the private key: there is none in it, in PEM"),
        ({"cert_pem": "", "key_pem": ""}, "cannot use the certificate"),
        ({"certfile": "/nonexistent/cert.pem"}, "/nonexistent/cert.pem: No such file or directory"),
        ({"certfile": "/dev/null"}, "certificate /dev/null: there is none in it, in PEM"),
        ({"certfile": "/", "keyfile": "/"}, "cannot use the certificate /"),
    ],
    ids=lambda t: (
        ",".join(f"{k}={v[:12].strip()}" for k, v in t.items()) or "none" if isinstance(t, dict) else ""
    ),
)
def test_a_certificate_that_cannot_be_used_is_told(tls: dict[str, str], words: str) -> None:
    with pytest.raises(QuicServerException, match="certificate or key cannot be used") as caught:
        Configuration(ServerTls(**tls), QuicConfiguration(), keys=Keys())
    assert words in str(caught.value)


def test_a_key_log_that_cannot_be_written_is_no_fault_of_the_certificate() -> None:
    tls = ServerTls(cert_pem=CERT, key_pem=KEY, keylog_file="/nonexistent/log")
    with pytest.raises(QuicClientException, match="cannot open the key log /nonexistent/log: No such file"):
        Configuration(tls, QuicConfiguration(), keys=Keys())


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(QuicException, match="NUL"):
        Configuration(ServerTls(certfile="a\0b"), QuicConfiguration())


def test_a_certificate_and_its_key_may_stand_in_one_file(tmp_path: Any) -> None:
    both = tmp_path / "both.pem"
    both.write_text(CERT + KEY)
    Configuration(ServerTls(certfile=str(both)), QuicConfiguration(), keys=Keys())


def test_certificates_are_made_for_names_and_addresses() -> None:
    from cryptography import x509

    cert, key = _contexts.self_signed("a.test,127.0.0.1,::1", days=3)
    parsed = x509.load_pem_x509_certificate(cert.encode())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.test"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert "PRIVATE KEY" in key


@pytest.mark.parametrize("names", ["", ",", "a" * 9000])
def test_certificates_for_no_name_are_refused(names: str) -> None:
    with pytest.raises(QuicException):
        _contexts.self_signed(names)


@pytest.mark.parametrize(
    "options",
    [{"secret": b"short"}, {"secret": bytes(33)}, {"period_s": 0}, {"window": 0}, {"window": 65}],
    ids=str,
)
def test_key_rings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(QuicClientException, match="wrong argument"):
        Keys(**options)


@pytest.mark.parametrize("options", [{"period_s": -1}, {"origin_s": -1}, {"window": 1 << 40}], ids=str)
def test_key_rings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((QuicClientException, OverflowError)):
        Keys(**options)


def name_of(keys: Keys, use: int = lib.QG_KEY_TICKET) -> bytes:
    key = ffi.new("qg_key *")
    assert lib.qg_keys_current(keys.pointer, use, key) == 0
    return bytes(ffi.buffer(key.name))


def test_rings_of_one_secret_and_clock_have_the_same_keys() -> None:
    secret = os.urandom(32)
    a, b = (Keys(secret, period_s=10, window=3, origin_s=1000) for _ in range(2))
    other = Keys(period_s=10, window=3, origin_s=1000)
    seen = set()
    for now in (1000, 1009, 1010, 1075):
        assert a.rotate(now) == b.rotate(now) == (now - 1000) // 10
        assert name_of(a) == name_of(b) != name_of(other)
        seen.add(name_of(a))
    assert len(seen) == 3
    assert a.rotate(1000) == 7  # never back


def test_a_ring_outlives_who_made_it() -> None:
    keys = Keys()
    pair = Pair(keys=keys)
    del keys
    pair.connect()
    pair.close()
