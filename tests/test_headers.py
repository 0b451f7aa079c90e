from __future__ import annotations

import pytest

from quicgreen import Headers, QuicClientException
from quicgreen import headers as module

TEXT = (
    b"\n:authority\0a.test:4433\n:scheme\0https\naccept\0*/*\n"
    b"cookie\0a=1\nx-empty\0\nx-a\x001\nx-a\x002\ncookie\0b=2\n"
)


@pytest.fixture
def headers() -> Headers:
    return Headers(TEXT)


@pytest.mark.parametrize("name", ["accept", "Accept", "ACCEPT"])
def test_names_are_case_insensitive(headers: Headers, name: str) -> None:
    assert headers[name] == headers.get(name) == "*/*"
    assert name in headers


def test_what_is_not_there_has_no_value(headers: Headers) -> None:
    assert headers.get("x-none") is None
    assert headers.get("x-none", "default") == "default"
    assert "x-none" not in headers
    assert headers.get_list("x-none") == []
    with pytest.raises(KeyError, match="x-none"):
        headers["x-none"]


def test_a_name_is_matched_as_a_whole(headers: Headers) -> None:
    for part in ("x", "accep", "ccept", "-a", "", "accept\0*/*", "x-a\x001\nx-a"):
        assert headers.get(part) is None, part


def test_an_empty_value_is_a_value(headers: Headers) -> None:
    assert headers["x-empty"] == ""
    assert "x-empty" in headers


def test_repeated_fields_are_joined_and_cookies_with_semicolons(headers: Headers) -> None:
    assert headers["x-a"] == "1, 2"
    assert headers["cookie"] == headers["Cookie"] == "a=1; b=2"
    assert headers.get_list("X-A") == ["1", "2"]


def test_the_authority_is_the_host(headers: Headers) -> None:
    assert headers["host"] == headers["Host"] == "a.test:4433"
    assert headers.get_list("host") == ["a.test:4433"]
    assert headers.multi_items()[0] == ("host", "a.test:4433")


def test_pseudo_fields_are_not_listed(headers: Headers) -> None:
    assert list(headers) == ["host", "accept", "cookie", "x-empty", "x-a"]
    assert len(headers) == 5
    assert len(headers.multi_items()) == 7


def test_it_is_a_mapping(headers: Headers) -> None:
    expected = {"host": "a.test:4433", "accept": "*/*", "cookie": "a=1; b=2", "x-empty": "", "x-a": "1, 2"}
    assert dict(headers) == dict(headers.items()) == expected
    assert headers == expected
    assert list(headers.values()) == list(expected.values())
    assert 1 not in headers


def test_it_cannot_be_changed(headers: Headers) -> None:
    with pytest.raises(TypeError):
        headers["a"] = "b"
    with pytest.raises(AttributeError):
        headers.anything = 1


def test_none_at_all() -> None:
    empty = Headers()
    assert (dict(empty), len(empty), bool(empty), empty.multi_items()) == ({}, 0, False, [])


def test_a_host_field_in_a_response_is_found_as_it_is_listed() -> None:
    assert dict(Headers(b"\nserver\0x\nhost\0b.test\n")) == {"server": "x", "host": "b.test"}


def test_values_are_latin_1_which_loses_nothing() -> None:
    every = bytes(range(0x80, 0x100))
    headers = Headers(b"\nx\0" + every + b"\n")
    assert headers["x"].encode("latin-1") == every
    assert headers["x"] == headers.multi_items()[0][1]


def test_it_is_made_from_a_mapping_or_from_pairs() -> None:
    assert dict(Headers.of({"A": "1", "b": "2"})) == {"a": "1", "b": "2"}
    made = Headers.of([("Set-Cookie", "a"), ("set-cookie", "b"), ("Host", "h")])
    assert made.get_list("set-cookie") == ["a", "b"]
    assert made["host"] == "h"
    assert dict(Headers.of(made)) == dict(made)


@pytest.mark.parametrize(
    "item", [("a\0", "1"), ("a\n", "1"), ("a", "1\n"), ("a", "1\0b"), ("a", "1\r"), ("", "1")]
)
def test_what_would_be_taken_for_another_field_is_refused(item: tuple[str, str]) -> None:
    with pytest.raises(QuicClientException, match="wrong argument"):
        Headers.of([item])


def test_it_shows_what_is_in_it() -> None:
    assert repr(Headers.of({"A": "1"})) == "Headers([('a', '1')])"


def test_names_asked_for_are_not_remembered_without_end(headers: Headers) -> None:
    for i in range(3 * module._NEEDLES_MAX):
        assert headers.get(f"x-{i}") is None
    assert len(module._needles) <= module._NEEDLES_MAX
    assert headers["accept"] == "*/*"


def test_a_name_that_latin_1_does_not_have_is_not_there(headers: Headers) -> None:
    assert headers.get("x-\u20ac") is None
    assert "\u20ac" not in headers
    # Nor is it mistaken for the one that its replacement would name.
    assert Headers(b"\nx-?\x001\n").get("x-\u20ac") is None


def test_the_text_itself_is_there_for_who_wants_it(headers: Headers) -> None:
    assert headers.raw == TEXT
