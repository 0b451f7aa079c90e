"""Write src/qpack_tables.h: `python cext/tables.py` (`--check` compares instead).

Two facts stand here once: QPACK's static table (RFC 9204, appendix A) and the lengths of HPACK's
Huffman code (RFC 7541, appendix B). The code is canonical, that is, its words follow from their
lengths, so the generator derives them and everything that encoder and decoder look up.
"""

from __future__ import annotations

import sys
from pathlib import Path

TARGET = Path(__file__).parent / "src" / "qpack_tables.h"

STATIC = """
:authority|
:path|/
age|0
content-disposition|
content-length|0
cookie|
date|
etag|
if-modified-since|
if-none-match|
last-modified|
link|
location|
referer|
set-cookie|
:method|CONNECT
:method|DELETE
:method|GET
:method|HEAD
:method|OPTIONS
:method|POST
:method|PUT
:scheme|http
:scheme|https
:status|103
:status|200
:status|304
:status|404
:status|503
accept|*/*
accept|application/dns-message
accept-encoding|gzip, deflate, br
accept-ranges|bytes
access-control-allow-headers|cache-control
access-control-allow-headers|content-type
access-control-allow-origin|*
cache-control|max-age=0
cache-control|max-age=2592000
cache-control|max-age=604800
cache-control|no-cache
cache-control|no-store
cache-control|public, max-age=31536000
content-encoding|br
content-encoding|gzip
content-type|application/dns-message
content-type|application/javascript
content-type|application/json
content-type|application/x-www-form-urlencoded
content-type|image/gif
content-type|image/jpeg
content-type|image/png
content-type|text/css
content-type|text/html; charset=utf-8
content-type|text/plain
content-type|text/plain;charset=utf-8
range|bytes=0-
strict-transport-security|max-age=31536000
strict-transport-security|max-age=31536000; includesubdomains
strict-transport-security|max-age=31536000; includesubdomains; preload
vary|accept-encoding
vary|origin
x-content-type-options|nosniff
x-xss-protection|1; mode=block
:status|100
:status|204
:status|206
:status|302
:status|400
:status|403
:status|421
:status|425
:status|500
accept-language|
access-control-allow-credentials|FALSE
access-control-allow-credentials|TRUE
access-control-allow-headers|*
access-control-allow-methods|get
access-control-allow-methods|get, post, options
access-control-allow-methods|options
access-control-expose-headers|content-length
access-control-request-headers|content-type
access-control-request-method|get
access-control-request-method|post
alt-svc|clear
authorization|
content-security-policy|script-src 'none'; object-src 'none'; base-uri 'none'
early-data|1
expect-ct|
forwarded|
if-range|
origin|
purpose|prefetch
server|
timing-allow-origin|*
upgrade-insecure-requests|1
user-agent|
x-forwarded-for|
x-frame-options|deny
x-frame-options|sameorigin
""".strip().splitlines()

# Symbols 0 to 255, then the one that ends a string, which never occurs in one.
# fmt: off
LENGTHS = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30,
    28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5,
    7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22,
    22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23,
    22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22,
    21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26,
    26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20,
    24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27,
    27, 28, 27, 27, 27, 27, 27, 26, 30,
]
# fmt: on


def codes() -> list[int]:
    """The code word of each symbol: words of one length count up in symbol order."""
    words = [0] * len(LENGTHS)
    word = length = 0
    for symbol in sorted(range(len(LENGTHS)), key=lambda s: (LENGTHS[s], s)):
        word <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        words[symbol] = word
        word += 1
    return words


def c_array(kind: str, name: str, values: list[str], per_line: int) -> str:
    lines = [", ".join(values[i : i + per_line]) for i in range(0, len(values), per_line)]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(values)}] = {{\n    {body}}};\n"


def static_rows() -> list[str]:
    rows = []
    for line in STATIC:
        name, value = line.split("|", 1)
        rows.append(f'{{"{name}", "{value}", {len(name)}, {len(value)}}}')
    return rows


def decode_tables() -> str:
    """Canonical decoding: the first word of each length, and where its symbols begin; and what any
    eight bits begin with, since most characters of a header take no more."""
    words = codes()
    order = sorted(range(len(LENGTHS)), key=lambda s: (LENGTHS[s], s))
    limit, offset = [], []
    for length in range(31):
        mine = [s for s in order if LENGTHS[s] == length]
        # One past the last word of this length, aligned to 32 bits: a window below it has a word of
        # at most this length at its top.
        below = [s for s in order if 0 < LENGTHS[s] <= length]
        limit.append((words[below[-1]] + 1) << (32 - LENGTHS[below[-1]]) if below else 0)
        offset.append(order.index(mine[0]) - words[mine[0]] if mine else 0)
    short = []
    for byte in range(256):
        hit = next((s for s in order if LENGTHS[s] <= 8 and byte >> (8 - LENGTHS[s]) == words[s]), None)
        short.append(f"{{{hit}, {LENGTHS[hit]}}}" if hit is not None else "{0, 0}")
    return "\n".join(
        [
            c_array("uint16_t", "huffman_order", [str(s) for s in order], 16),
            c_array("uint64_t", "huffman_limit", [f"0x{v:x}" for v in limit], 6),
            c_array("int32_t", "huffman_offset", [str(v) for v in offset], 10),
            c_array("qg_huffman_short", "huffman_short", short, 8),
        ]
    )


def text() -> str:
    words = codes()
    encode = [f"{{0x{word:x}, {length}}}" for word, length in zip(words, LENGTHS, strict=True)]
    return f"""/* qpack_tables.h: generated by cext/tables.py; do not edit.
 * QPACK's static table (RFC 9204, appendix A) and HPACK's Huffman code (RFC 7541, appendix B). */
#ifndef QG_QPACK_TABLES_H
#define QG_QPACK_TABLES_H

#include <stdint.h>

/* clang-format off */
typedef struct qg_static_field {{
    const char *name, *value;
    uint8_t name_len, value_len;
}} qg_static_field;

typedef struct qg_huffman_word {{
    uint32_t word;
    uint8_t length;
}} qg_huffman_word;

typedef struct qg_huffman_short {{
    uint8_t symbol, length; /* length 0: the word is longer than eight bits */
}} qg_huffman_short;

#define QG_STATIC_FIELDS {len(STATIC)}

{c_array("qg_static_field", "static_table", static_rows(), 1)}
{c_array("qg_huffman_word", "huffman_words", encode, 8)}
{decode_tables()}/* clang-format on */

#endif
"""


def main() -> int:
    if "--check" in sys.argv:
        if TARGET.read_text() != text():
            print(f"{TARGET.name} is stale: run python cext/tables.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
