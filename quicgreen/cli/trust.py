"""Whom a command trusts and what it shows: the options that all commands of a client share."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", "--insecure", action="store_true", help="do not verify the certificate")
    parser.add_argument("--cacert", metavar="FILE", help="trust these certificates instead of the usual ones")
    parser.add_argument("-E", "--cert", metavar="FILE", help="client certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="its key")


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """They as arguments of `Session` and `connect`: verify and cert."""
    verify: bool | str = not options.insecure
    if options.cacert and not options.insecure:
        verify = options.cacert
    return {"verify": verify, "cert": (options.cert, options.key) if options.key else options.cert}
