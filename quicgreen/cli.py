"""The command line: `quicgreen serve`, `quicgreen fetch`, `quicgreen info`.

Options bear the names that curl and gunicorn gave them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO
from urllib.parse import quote

from . import __version__
from .exceptions import CAUSES, QuicException

# curl's exit codes, which scripts test for.
_EXIT_CODES = {
    "argument": 3,
    "name": 6,
    "unreachable": 7,
    "version": 7,
    "http-status": 22,
    "deadline": 28,
    "handshake-timeout": 28,
    "idle-timeout": 28,
    "pool-timeout": 28,
    "alert": 35,
    "closed-by-peer": 56,
    "lost": 56,
    "certificate": 60,
    "trust-file": 77,
    "reset": 92,
    "malformed": 92,
}
_EXIT_OTHER = 95
"""curl's CURLE_HTTP3: an error in the HTTP/3 layer."""

_EXIT_WRITE = 23
_EXIT_READ = 26

_ADVICE = {
    "argument": "see quicgreen COMMAND --help",
    "certificate": "--cacert FILE trusts a private authority, -k everybody",
    "trust-file": "--cacert must name a PEM file",
    "deadline": "-m gives it more time",
    "handshake-timeout": "check that UDP reaches the server's port; --connect-timeout gives it more time",
    "http-status": "without -f its body is shown",
    "bind": "see --bind",
    "certificate-file": "see --certfile and --keyfile: both are PEM files, and the key is the certificate's",
}
"""What to do next, where it is something else than for a program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        status = command(options)
        _flush(sys.stdout)
        return status
    except QuicException as e:
        _complain(_words(e))
        return _EXIT_CODES.get(e.cause, _EXIT_OTHER)
    except _OutputError as e:
        if e.file in (sys.stdout, sys.stdout.buffer):
            # What is still buffered for it must not fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(e.reason, BrokenPipeError) and not getattr(options, "silent", False):
            _complain(f"cannot write: {e.reason}")
        return _EXIT_WRITE
    except KeyboardInterrupt:
        return 130


def _flush(file: Any) -> None:
    try:
        file.flush()
    except OSError as e:
        raise _OutputError(e, file) from None


class _OutputError(Exception):
    """Standard output or a file does not take what is written."""

    def __init__(self, reason: OSError, file: Any = None) -> None:
        self.reason = reason
        self.file = file


def _complain(text: str) -> None:
    print(f"quicgreen: {text}", file=sys.stderr)


def _words(e: QuicException) -> str:
    """What happened, and what to do next with this command."""
    text = str(e)
    advice = _ADVICE.get(e.cause)
    return text.replace(f"({CAUSES[e.cause].advice})", f"({advice})") if advice else text


def _quiet_interrupts() -> None:
    """Ctrl-C ends the command; gevent need not print a traceback of its hub for it."""
    from gevent import get_hub

    hub = get_hub()
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quicgreen", description="HTTP/3 in greenlets")
    parser.add_argument("--version", action="version", version=f"quicgreen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a handler over HTTP/3"))
    _add_fetch(commands.add_parser("fetch", help="fetch a URL over HTTP/3"))
    _add_info(commands.add_parser("info", help="versions, what the system offers, and defaults"))
    return parser


# ------------------------------------------------------------------ serve


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve)
    parser.add_argument("handler", metavar="MODULE:HANDLER", help="a callable that takes a Request")
    parser.add_argument("--interface", choices=["native"], default="native", help="what HANDLER is")
    parser.add_argument("-b", "--bind", metavar="HOST:PORT", default="127.0.0.1:4433")
    parser.add_argument("--certfile", metavar="FILE", help="certificate chain (PEM)")
    parser.add_argument("--keyfile", metavar="FILE", help="its key (PEM); may stand in the certificate file")
    parser.add_argument(
        "--ca-certs", metavar="FILE", help="demand client certificates signed by one of these"
    )
    parser.add_argument(
        "--spawn", default="default", help="default, raw, or how many handlers may run at once"
    )
    parser.add_argument(
        "--retry", choices=["never", "always"], default="never", help="prove client addresses"
    )
    parser.add_argument("--graceful-timeout", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--chdir", metavar="DIR", help="change to this folder first")
    parser.add_argument("--no-patch", action="store_true", help="do not monkey-patch the standard library")


def _serve(options: argparse.Namespace) -> int:
    if not options.no_patch:
        # Before the handler's module is imported, so that what it imports is cooperative.
        from gevent import monkey

        monkey.patch_all()
    import gevent
    import gevent.queue

    from .server import Server

    _quiet_interrupts()
    if options.chdir:
        try:
            os.chdir(options.chdir)
        except OSError as e:
            sys.exit(f"quicgreen: --chdir: {e}")
    handler = _load(options.handler)
    tls = _development_certificate(options.bind) if options.certfile is None else None
    server = Server(
        options.bind,
        handler,
        certfile=options.certfile,
        keyfile=options.keyfile,
        ca_certs=options.ca_certs,
        tls=tls,
        spawn=int(options.spawn) if options.spawn.isdigit() else options.spawn,
        retry=options.retry,
    )
    server.start()
    if tls is not None:
        print(
            "no --certfile: made a self-signed certificate for this machine; clients must not verify it "
            "(quicgreen fetch -k)"
        )
    host, port = server.address or ("", 0)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"quicgreen {__version__} serves {options.handler} on https://{where}/ (UDP)", flush=True)
    signals = gevent.queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, signals.put, number)
    signals.get()
    print("stopping; once more stops at once", flush=True)
    draining = gevent.spawn(server.stop, timeout=options.graceful_timeout)
    impatient = gevent.spawn(signals.get)
    gevent.wait([draining, impatient], count=1)
    server.close()
    return 0


def _load(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        sys.exit(f"quicgreen: {name!r} is not of the form MODULE:HANDLER")
    sys.path.insert(0, os.getcwd())
    try:
        handler: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module_name}.".startswith(f"{e.name}."):
            raise  # something that the module imports: its author wants the traceback
        sys.exit(f"quicgreen: no module named {e.name!r} here (see --chdir)")
    for part in attribute.split("."):
        handler = getattr(handler, part, None)
    if not callable(handler):
        sys.exit(f"quicgreen: {module_name} has no callable {attribute!r}")
    return handler


def _development_certificate(bind: str) -> Any:
    """Without a certificate: one for this machine only."""
    from gevent.baseserver import parse_address as split_address

    from ._contexts import self_signed
    from ._engine import parse_address
    from .configuration import ServerTls

    try:
        host = split_address(bind)[1][0]
    except ValueError:
        sys.exit(f"quicgreen: --bind {bind!r} is not of the form HOST:PORT")
    if host not in ("localhost", "::1") and not host.startswith("127."):
        sys.exit("quicgreen: --certfile and --keyfile are needed to serve other machines")
    names = dict.fromkeys(["localhost", "127.0.0.1", "::1", *([host] if parse_address(host, 0) else [])])
    cert, key = self_signed(",".join(names))
    return ServerTls(cert_pem=cert, key_pem=key)


# ------------------------------------------------------------------ fetch


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_fetch)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("-k", "--insecure", action="store_true", help="do not verify the certificate")
    parser.add_argument("--cacert", metavar="FILE", help="trust these certificates instead of the usual ones")
    parser.add_argument("-E", "--cert", metavar="FILE", help="client certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="its key")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens, on stderr")
    parser.add_argument("-s", "--silent", action="store_true", help="no progress, no error text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the body there instead of stdout")
    parser.add_argument("-i", "--include", action="store_true", help="write the head too")
    parser.add_argument("-I", "--head", action="store_true", help="ask for the head only")
    parser.add_argument("-f", "--fail", action="store_true", help="fail for a status of 400 and more")
    parser.add_argument("-X", "--request", metavar="METHOD")
    parser.add_argument("-H", "--header", metavar="NAME: VALUE", action="append", default=[])
    parser.add_argument(
        "-d",
        "--data",
        metavar="DATA",
        action="append",
        help="POST a form: DATA, or @FILE (@- for stdin) without its line ends; several are joined by &",
    )
    parser.add_argument("-T", "--upload-file", metavar="FILE", help="send FILE (- for stdin) as PUT")
    parser.add_argument("-m", "--max-time", type=float, metavar="SECONDS", help="for everything together")
    parser.add_argument("--connect-timeout", type=float, default=10.0, metavar="SECONDS")


def _fetch(options: argparse.Namespace) -> int:
    from gevent import Timeout as GeventTimeout

    _quiet_interrupts()
    limit = GeventTimeout(options.max_time)
    limit.start()
    try:
        return _fetch_within(options)
    except GeventTimeout as e:
        if e is not limit:
            raise
        if not options.silent:
            _complain(f"not done after {options.max_time} s (-m gives it more time)")
        return _EXIT_CODES["deadline"]
    except QuicException as e:
        if not options.silent:
            _complain(_words(e))
        return _EXIT_CODES.get(e.cause, _EXIT_OTHER)
    finally:
        limit.close()


def _fetch_within(options: argparse.Namespace) -> int:
    from .client import Session
    from .configuration import Timeout

    say: Callable[[str], None] = _say if options.verbose else lambda text: None
    verify: bool | str = not options.insecure
    if options.cacert and not options.insecure:
        verify = options.cacert
    cert = (options.cert, options.key) if options.key else options.cert
    timeout = Timeout(connect=options.connect_timeout, read=options.max_time)
    headers = [_header(text) for text in options.header]
    with ExitStack() as opened, Session(verify=verify, cert=cert, timeout=timeout) as session:
        try:
            body, method, more = _body(options, opened)
        except OSError as e:
            if not options.silent:
                _complain(f"cannot read: {e}")
            return _EXIT_READ
        given = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in more if name not in given]
        started = time.monotonic()
        with session.stream(method, _target(options), headers=headers, data=body) as response:
            _tell_exchange(say, response, headers)
            if options.fail:
                response.raise_for_status()
            written = _write(options, response)
        say(f"* {written} bytes in {time.monotonic() - started:.3f} s")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _body(options: argparse.Namespace, opened: ExitStack) -> tuple[Any, str, list[tuple[str, str]]]:
    """(body, method, fields that it brings)."""
    if options.data is not None:
        form = b"&".join(_form_data(text) for text in options.data)
        return form, options.request or "POST", [("content-type", "application/x-www-form-urlencoded")]
    name = options.upload_file
    if name is None:
        return None, options.request or ("HEAD" if options.head else "GET"), []
    method = options.request or "PUT"
    if name == "-":
        return sys.stdin.buffer, method, []
    file = opened.enter_context(open(name, "rb"))  # noqa: SIM115
    about = os.fstat(file.fileno())
    length = [("content-length", str(about.st_size))] if stat.S_ISREG(about.st_mode) else []
    return file, method, length


def _form_data(text: str) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    if text == "@-":
        data = sys.stdin.buffer.read()
    else:
        with open(text[1:], "rb") as file:
            data = file.read()
    return data.translate(None, b"\r\n\0")


def _target(options: argparse.Namespace) -> str:
    """The URL; a file is uploaded by its name where the URL names a folder."""
    url: str = options.url
    if options.upload_file not in (None, "-") and url.endswith("/"):
        url += quote(os.path.basename(options.upload_file))
    return url


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        sys.exit(f"quicgreen: -H {text!r} is not of the form NAME: VALUE")
    return name.strip(), value.strip()


def _tell_exchange(say: Callable[[str], None], response: Any, headers: list[tuple[str, str]]) -> None:
    info = response.connection.info()
    ip, port = info.get("remote_address", ("?", 0))
    say(f"* Connected to {ip} port {port} (QUIC version 1)")
    say(f"* ALPN: server accepted {info.get('alpn')}")
    say(f"> {response.request_method} {response.url} HTTP/3")
    for name, value in headers:
        say(f"> {name}: {value}")
    say(f"< HTTP/3 {response.status_code} {response.reason}")
    for name, value in response.headers.multi_items():
        say(f"< {name}: {value}")


def _write(options: argparse.Namespace, response: Any) -> int:
    """The body to where it is wanted; returns its length."""
    if not options.output or options.output == "-":
        return _copy(options, response, sys.stdout.buffer)
    try:
        file = open(options.output, "wb")  # noqa: SIM115 - closed below; errors here are not those of the network
    except OSError as e:
        raise _OutputError(e) from None
    with file:
        return _copy(options, response, file)


def _copy(options: argparse.Namespace, response: Any, file: BinaryIO) -> int:
    if options.include or options.head:
        lines = [f"HTTP/3 {response.status_code}"]
        lines += [f"{name}: {value}" for name, value in response.headers.multi_items()]
        _put(file, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    meter = _Meter(response.content_length) if _wants_meter(options) else None
    written = 0
    for piece in response.iter_bytes():
        _put(file, piece)
        written += len(piece)
        if meter is not None:
            meter.show(written)
    if meter is not None:
        meter.end(written)
    return written


def _put(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as e:
        raise _OutputError(e, file) from None
    _flush(file)  # events and tokens are to be seen as they come


def _wants_meter(options: argparse.Namespace) -> bool:
    to_file = bool(options.output) and options.output != "-"
    return to_file and not options.silent and not options.verbose and sys.stderr.isatty()


class _Meter:
    """Progress on one line of a terminal."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._started = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.1:
            self._shown = now
            self._print(done, now)

    def end(self, done: int) -> None:
        self._print(done, time.monotonic())
        print(file=sys.stderr)

    def _print(self, done: int, now: float) -> None:
        share = f" {100 * done // self._total:3d} %" if self._total else ""
        rate = done / max(now - self._started, 1e-6) / 1e6
        print(f"\r{done / 1e6:10.1f} MB{share}  {rate:8.1f} MB/s", end="", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ info


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_info)
    parser.add_argument("key", nargs="?", help="print this value only")


def _info(options: argparse.Namespace) -> int:
    values = information()
    if options.key is None:
        lines = [f"{name} => {value}\n" for name, value in values.items()]
        _put(sys.stdout.buffer, "".join(lines).encode())
        return 0
    if options.key not in values:
        _complain(f"no such key: {options.key}")
        return 1
    _put(sys.stdout.buffer, f"{values[options.key]}\n".encode())
    return 0


def information() -> dict[str, Any]:
    """What `quicgreen info` prints."""
    import gevent
    import greenlet

    from . import _contexts, _engine, hub

    runtime = hub.current()
    values: dict[str, Any] = {
        "quicgreen.version": __version__,
        "quicgreen.engine": _engine.build_info(),
        "quicgreen.abi": _engine.ABI,
        "python.version": platform.python_version(),
        "gevent.version": gevent.__version__,
        "gevent.loop": f"{type(runtime.hub.loop).__module__} ({runtime.hub.loop.backend})",
        "greenlet.version": greenlet.__version__,
        "system.kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "greenlets.arena_cache": "on" if _engine.install_arena_cache() else "off",
    }
    endpoint, _ = runtime.engine.endpoint_udp("127.0.0.1", 0)
    if endpoint >= 0:
        info = runtime.engine.endpoint_info(endpoint)
        for name in _engine.CAPABILITIES:
            values[f"udp.{name}"] = "yes" if name in info["capabilities"] else "no"
        values["udp.receive_buffer"] = info["receive_buffer"]
        values["udp.send_buffer"] = info["send_buffer"]
        runtime.engine.endpoint_close(endpoint)
    values["QUICPRO_BUSY_POLL"] = os.environ.get("QUICPRO_BUSY_POLL") or "off"
    for name, value in _contexts.config_defaults(is_server=True).items():
        values[f"transport.{name}"] = value
    return values
