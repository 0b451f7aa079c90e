from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from support import check_python

from quicgreen import QuicClientException
from quicgreen.tickets import TicketKeys, fingerprint, ticket_key


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    made = {}
    for name in ("ca", "other ca", "cert", "other cert"):
        path = tmp_path / f"{name}.pem"
        path.write_text(f"-----BEGIN {name}-----")
        made[name] = str(path)
    for name in ("folder", "other folder"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "0123abcd.0").write_text(f"a certificate of {name}")
        made[name] = str(folder)
    return made


def test_whatever_had_a_say_in_the_handshake_makes_another_key(files: dict[str, str]) -> None:
    base: dict[str, Any] = {"host": "a.test", "port": 443, "ca_file": files["ca"]}
    variants: list[dict[str, Any]] = [
        {},
        {"host": "b.test"},
        {"port": 444},
        {"server_name": "b.test"},
        {"alpn": ("h3", "hq")},
        {"alpn": ("hq", "h3")},
        {"alpn": ("h3hq",)},
        {"alpn": ()},
        {"verify": False},
        {"ca_file": None},
        {"ca_file": files["other ca"]},
        {"ca_dir": files["folder"]},
        {"ca_dir": files["other folder"]},
        {"ca_file": None, "ca_dir": files["folder"]},
        {"cert": files["cert"]},
        {"cert": files["other cert"]},
        {"verify": False, "cert": files["cert"]},
    ]
    keys = {ticket_key(**{**base, **v}) for v in variants}
    assert len(keys) == len(variants)
    assert all(re.fullmatch("[0-9a-f]{32}", k) and fingerprint(k) == k for k in keys)


def test_what_makes_no_difference_makes_no_other_key(files: dict[str, str], tmp_path: Path) -> None:
    key = ticket_key("a.test", 443, ca_file=files["ca"])
    copy = tmp_path / "elsewhere.pem"
    copy.write_bytes(Path(files["ca"]).read_bytes())
    os.utime(copy, (1, 1))
    assert ticket_key("A.TEST", 443, server_name="a.test", ca_file=str(copy)) == key
    unverified = ticket_key("a.test", 443, verify=False)
    assert ticket_key("a.test", 443, verify=False, ca_file=files["ca"], ca_dir=files["folder"]) == unverified


def test_no_two_fields_run_into_each_other() -> None:
    assert ticket_key("a", 1, server_name="b.c") != ticket_key("a", 1, server_name="b", alpn=(".c", "h3"))
    assert ticket_key("a", 11, alpn=("h3",)) != ticket_key("a1", 1, server_name="a", alpn=("h3",))


def test_a_key_is_the_same_in_another_process(files: dict[str, str]) -> None:
    code = """
        import sys
        from quicgreen.tickets import TicketKeys, ticket_key
        print(ticket_key("a.test", 443, ca_file=sys.argv[1]))
    """
    said = check_python(code, files["ca"], PYTHONHASHSEED="77")
    assert said.strip() == ticket_key("a.test", 443, ca_file=files["ca"])


def test_a_changed_file_makes_another_key(files: dict[str, str]) -> None:
    """Who no longer trusts an authority does not resume what it vouched for."""
    before = ticket_key("a.test", 443, ca_file=files["ca"])
    text = Path(files["ca"]).read_text()
    Path(files["ca"]).write_text(text.replace("ca", "CA"))
    os.utime(files["ca"], (1, 1))
    changed = ticket_key("a.test", 443, ca_file=files["ca"])
    assert changed != before
    Path(files["ca"]).write_text(text)
    assert ticket_key("a.test", 443, ca_file=files["ca"]) == before


def test_a_folder_is_what_openssl_finds_in_it(files: dict[str, str]) -> None:
    folder = Path(files["folder"])
    seen = [ticket_key("a.test", 443, ca_dir=str(folder))]
    (folder / "README").write_text("not a certificate")
    assert ticket_key("a.test", 443, ca_dir=str(folder)) == seen[0]
    (folder / "89abcdef.0").symlink_to(files["ca"])
    seen.append(ticket_key("a.test", 443, ca_dir=str(folder)))
    (folder / "89abcdef.0").rename(folder / "89abcdef.1")
    seen.append(ticket_key("a.test", 443, ca_dir=str(folder)))
    Path(files["ca"]).write_text("another certificate")  # the link's target
    seen.append(ticket_key("a.test", 443, ca_dir=str(folder)))
    (folder / "89abcdef.r0").write_text("revocations")
    seen.append(ticket_key("a.test", 443, ca_dir=str(folder)))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"ca_file": "/none"}, "trust-file"),
        ({"ca_dir": "/none"}, "trust-file"),
        ({"cert": "/none"}, "argument"),
    ],
)
def test_a_file_that_is_not_there_is_named(options: dict[str, str], cause: str) -> None:
    with pytest.raises(QuicClientException, match="/none: No such file") as caught:
        ticket_key("a.test", 443, **options)
    assert caught.value.cause == cause


def test_a_binding_is_of_what_a_resumed_handshake_takes_for_granted(files: dict[str, str]) -> None:
    """The name that was verified, and how; not where the server was found."""
    keys = TicketKeys(server_name="a.test", ca_file=files["ca"])
    assert len(keys.binding("x")) == 16
    assert keys.binding("x") == keys.binding("y") == TicketKeys(ca_file=files["ca"]).binding("A.test")
    assert keys.key("x", 1) != keys.key("y", 1)
    others = [
        TicketKeys(server_name="b.test", ca_file=files["ca"]),
        TicketKeys(server_name="a.test", ca_file=files["other ca"]),
        TicketKeys(server_name="a.test"),
        TicketKeys(server_name="a.test", verify=False),
        TicketKeys(server_name="a.test", ca_file=files["ca"], cert=files["other ca"]),
    ]
    assert len({k.binding("x") for k in [keys, *others]}) == 6


def test_files_count_as_they_were_when_they_were_read(files: dict[str, str]) -> None:
    """As for the connections: their configuration has read them, and trusts what stood there then."""
    keys = TicketKeys(ca_file=files["ca"])
    before = keys.key("a", 1)
    Path(files["ca"]).write_text("another one")
    assert keys.key("a", 1) == before != ticket_key("a", 1, ca_file=files["ca"])
