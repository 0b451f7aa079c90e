"""Bodies of any length whose bytes tell where they belong. Imported by peers too: standard library only."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator

BLOCK = 1 << 16

_noise = random.Random(1).randbytes(BLOCK - 8)


def blocks(length: int) -> Iterator[bytes]:
    """The body of this length in pieces. Each block begins with its number, so that one that is lost,
    repeated or misplaced changes the digest."""
    number = 0
    while length > 0:
        block = number.to_bytes(8, "big") + _noise
        yield block if length >= BLOCK else block[:length]
        length -= BLOCK
        number += 1


@functools.lru_cache(maxsize=8)
def body(length: int) -> bytes:
    return b"".join(blocks(length))


@functools.lru_cache(maxsize=256)
def digest(length: int) -> str:
    """SHA-256 of the body of this length."""
    sha = hashlib.sha256()
    for block in blocks(length):
        sha.update(block)
    return sha.hexdigest()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
