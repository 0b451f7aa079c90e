"""What every HTTP server of the tests answers, whoever made it. Imported by peers: no quicgreen here.

/version               the peer's name in x-peer, as in every answer
/size/N                the body of N bytes, with its digest in x-sha256
/echo                  the request's body
/sink                  JSON: the request's method, fields, and its body's length and digest
/status/N              that status, with a body where one is allowed
/fields/N/SIZE         N fields x-0, x-1 ... of SIZE bytes
/odd-fields            values that are not ASCII, empty or repeated
/hop-by-hop            fields that belong to HTTP/1.1, which careless applications let through
"""

from __future__ import annotations

import json
from typing import Any

from . import bodies

Fields = list[tuple[bytes, bytes]]


def seen(method: str, fields: list[tuple[str, str]], length: int, sha256: str, **more: Any) -> bytes:
    """What a server tells about a request."""
    told = {"method": method, "fields": fields, "length": length, "sha256": sha256, **more}
    return json.dumps(told).encode()


def answer(method: str, path: str, fields: Fields, body: bytes, peer: str) -> tuple[int, Fields, bytes]:
    """(status, fields, body) for a request that is complete."""
    own: Fields = [(b"x-peer", peer.encode())]
    what, *arguments = path.strip("/").split("/")
    if what == "version":
        return 200, own, b""
    if what == "size":
        size = int(arguments[0])
        own.append((b"x-sha256", bodies.digest(size).encode()))
        return 200, own, bodies.body(size)
    if what == "echo":
        own.append((b"x-method", method.encode()))
        return 200, own, body
    if what == "sink":
        text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        return 200, own, seen(method, text, len(body), bodies.digest_of(body))
    if what == "status":
        status = int(arguments[0])
        return status, own, b"" if status in (204, 304) else b"status"
    if what == "fields":
        count, size = map(int, arguments)
        own += [(b"x-%d" % i, bodies.digest(i).encode()[:1] * size) for i in range(count)]
        return 200, own, b""
    if what == "odd-fields":
        own += [(b"x-latin", "caf\xe9".encode("latin-1")), (b"x-utf8", "日本".encode()), (b"x-empty", b"")]
        own += [
            (b"set-cookie", b"a=1; Path=/"),
            (b"set-cookie", b"b=2, c"),
            (b"x-twice", b"1"),
            (b"x-twice", b"2"),
        ]
        return 200, own, b""
    if what == "hop-by-hop":
        return 200, [*own, (b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5")], b"kept"
    return 404, own, b"no such thing here"
