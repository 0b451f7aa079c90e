"""A peer: libcurl with ngtcp2 and nghttp3, as curl_cffi brings it. Prints what happened as JSON.

Options
    ca          what to trust
    requests    a list, sent one after the other on one connection; or all together with "parallel": true
    fresh       a new connection for each, with the TLS session of the last
    early       with early data, where curl can (CURLSSLOPT_EARLYDATA)
    cert, key   a client certificate
A request is {"method", "url", "size", "fields"}. What curl cannot do is told as {"error": its code}.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

import ready
from curl_cffi import AsyncCurl, Curl, CurlError, CurlHttpVersion, CurlInfo, CurlOpt

from helpers import bodies

VERSION = Curl().version().decode()

EARLYDATA = 1 << 6
"""CURLSSLOPT_EARLYDATA, since libcurl 8.11."""


class Transfer:
    """A request on a handle of curl's."""

    def __init__(self, curl, options, request):
        self.curl = curl
        self.sha, self.length, self.content = hashlib.sha256(), 0, b""
        self.heads = []
        curl.setopt(CurlOpt.URL, request["url"].encode())
        curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
        curl.setopt(CurlOpt.CAINFO, options["ca"].encode())
        curl.setopt(CurlOpt.TIMEOUT_MS, 40_000)
        curl.setopt(CurlOpt.NOSIGNAL, 1)
        if "cert" in options:
            curl.setopt(CurlOpt.SSLCERT, options["cert"].encode())
            curl.setopt(CurlOpt.SSLKEY, options["key"].encode())
        curl.setopt(CurlOpt.FRESH_CONNECT, int(bool(options.get("fresh"))))
        curl.setopt(CurlOpt.FORBID_REUSE, int(bool(options.get("fresh"))))
        curl.setopt(CurlOpt.PIPEWAIT, 1)
        if options.get("early"):
            curl.setopt(CurlOpt.SSL_OPTIONS, EARLYDATA)
        method = request.get("method", "GET")
        size = request.get("size")
        fields = [f"{name}: {value}" if value else f"{name};" for name, value in request.get("fields", [])]
        if size is not None:
            curl.setopt(CurlOpt.POST, 1)
            curl.setopt(CurlOpt.POSTFIELDSIZE_LARGE, size)
            curl.setopt(CurlOpt.POSTFIELDS, bodies.body(size))
            fields += ["expect:", "content-type: application/octet-stream"]
        curl.setopt(CurlOpt.CUSTOMREQUEST, method.encode())
        curl.setopt(CurlOpt.NOBODY, int(method == "HEAD"))
        curl.setopt(CurlOpt.HTTPHEADER, [f.encode("latin-1") for f in fields])
        curl.setopt(CurlOpt.WRITEFUNCTION, self.take)
        curl.setopt(CurlOpt.HEADERFUNCTION, self.take_line)

    def take(self, data):
        self.sha.update(data)
        self.length += len(data)
        if len(self.content) < 65536:
            self.content = (self.content + data)[:65536]
        return len(data)

    def take_line(self, line):
        text = line.decode("latin-1").rstrip("\r\n")
        if text.startswith("HTTP/"):
            self.heads.append([])
        elif text:
            name, _, value = text.partition(":")
            self.heads[-1].append((name, value.strip()))
        return len(line)

    def told(self):
        return {
            "status": self.curl.getinfo(CurlInfo.RESPONSE_CODE),
            "http_version": self.curl.getinfo(CurlInfo.HTTP_VERSION),
            "connects": self.curl.getinfo(CurlInfo.NUM_CONNECTS),
            "ip": self.curl.getinfo(CurlInfo.PRIMARY_IP).decode(),
            "interim": len(self.heads) - 1,
            "fields": self.heads[-1] if self.heads else [],
            "length": self.length,
            "sha256": self.sha.hexdigest(),
            "content": self.content.decode("latin-1"),
        }


def one_after_the_other(options):
    curl = Curl()
    told = []
    for request in options["requests"]:
        transfer = Transfer(curl, options, request)
        try:
            curl.perform()  # and forget its fields, which would be sent with the next one too
            told.append(transfer.told())
        except CurlError as e:
            told.append({"error": int(e.code), "text": str(e)})
        curl.reset()
    curl.close()
    return told


async def all_together(options):
    multi = AsyncCurl()
    transfers = [Transfer(Curl(), options, request) for request in options["requests"]]
    await asyncio.gather(*(multi.add_handle(t.curl) for t in transfers))
    told = [t.told() for t in transfers]
    await multi.close()
    return told


def main() -> None:
    options = ready.options()
    together = options.get("parallel")
    answers = asyncio.run(all_together(options)) if together else one_after_the_other(options)
    print(json.dumps({"version": VERSION, "answers": answers}))


main()
