"""The options of trust, as `Session` gets them."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from quicgreen.cli import trust


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], {"verify": True, "cert": None}),
        (["-k"], {"verify": False, "cert": None}),
        (["--cacert", "a.pem"], {"verify": "a.pem", "cert": None}),
        (["-k", "--cacert", "a.pem"], {"verify": False, "cert": None}),
        (["-E", "c.pem"], {"verify": True, "cert": "c.pem"}),
        (["--cert", "c.pem", "--key", "k.pem"], {"verify": True, "cert": ("c.pem", "k.pem")}),
    ],
)
def test_arguments(given: list[str], expected: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser()
    trust.add(parser)
    assert trust.arguments(parser.parse_args(given)) == expected
