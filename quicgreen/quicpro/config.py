"""`Config`: all settings of a session or a server, by the documentation's names.

Every name is checked where it is given. One that is unknown is warned of, since a setting for another version
should not stop a program; a value that cannot be, and a setting that this version cannot give, raise.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from .. import settings
from .._group import WorkerGroup
from ..configuration import ClientTls, QuicConfiguration, ServerTls, Timeout
from ..exceptions import (
    QuicWarningDeprecatedFeature,
    QuicWarningInvalidParameters,
    error,
    warn,
)
from .options import ALIASES, OPTIONS, UNAVAILABLE

_TRANSPORT = frozenset(f.name for f in dataclasses.fields(QuicConfiguration))


class Config(Mapping[str, Any]):
    """Settings, checked; a mapping of those that were given. Made once, shared, not changed afterwards.

        Config.new({"cert_file": "cert.pem", "key_file": "key.pem"})
        Config.new(verify_peer=False, connect_timeout_ms=500)

    The names stand in `quicgreen.quicpro.options`, and in docs/quicpro.md with their defaults.

    Raises:
        QuicClientException: a value is not of its kind, or asks for what this version does not have.

    Warns:
        QuicWarningInvalidParameters: a name is not known.
        QuicWarningDeprecatedFeature: a setting was given by its old name.
    """

    __slots__ = ("_group", "_pid", "_values")

    def __init__(self, options: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        self._values = _read({**_mapping(options), **named})
        self._pid = os.getpid()
        self._group = self._new_group()

    @classmethod
    def new(cls, options: Mapping[str, Any] | None = None, /, **named: Any) -> Config:
        """From a mapping, names, or both; a value of None is as if it was not given."""
        return cls(options, **named)

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Config:
        """Of what a function was given as its options."""
        return options if isinstance(options, Config) else cls(options)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted((k, str(v)) for k, v in self._values.items())))

    def get(self, name: str, default: Any = None) -> Any:
        """The setting that is in force: what was given, else `default`, else the setting's own default."""
        if name in self._values:
            return self._values[name]
        if default is not None:
            return default
        option = OPTIONS.get(name)
        return None if option is None else option.default

    def __repr__(self) -> str:
        return f"Config({self._values!r})"

    # ---------------------------------------------------------------- workers

    def _new_group(self) -> WorkerGroup | None:
        """With `session_cache` in so many words, for servers: here and now, so that it is there before the
        program forks. Pages that nobody uses cost nothing."""
        if not self._values.get("session_cache") or "cert_file" not in self._values:
            return None
        options = {}
        if "ticket_key_rotate_s" in self._values:
            options["key_period_s"] = self._values["ticket_key_rotate_s"]
        path = self._values.get("shm_path")
        return WorkerGroup(f"{path}.workers" if path else None, **options)

    @property
    def group(self) -> WorkerGroup | None:
        """What the servers of one port share that are made with this config: in processes that were forked
        after it was made, or with `shm_path` in any. None: a server is alone."""
        forked = self._pid != os.getpid()
        return self._group if forked or self._values.get("shm_path") else None

    # ---------------------------------------------------------------- in the core's words

    def transport(self) -> QuicConfiguration:
        """What goes to the engine."""
        return QuicConfiguration(**{k: v for k, v in self._values.items() if k in _TRANSPORT})

    def client_tls(self) -> ClientTls:
        """Whom a client trusts, and what it shows."""
        if "ca_file" in self._values and "ca_path" in self._values:
            raise error("argument", "ca_file and ca_path exclude each other")
        verify: bool | str = self.get("verify_peer")
        if verify:
            verify = self.get("ca_file") or self.get("ca_path") or True
        return ClientTls(
            verify=verify,
            cert=self.get("cert_file"),
            key=self.get("key_file"),
            alpn=self.get("alpn"),
            **self._keylog(),
        )

    def server_tls(self) -> ServerTls:
        """What a server shows and demands. Clients must have a certificate only where `verify_peer` says it
        in so many words: `ca_file` alone may be there for the client's side of a program."""
        demanded = self._values.get("verify_peer", False)
        if demanded and "ca_file" not in self._values:
            raise error("argument", "a server that verifies its clients needs ca_file")
        if "cert_file" not in self._values:
            raise error("argument", "a server needs cert_file")
        return ServerTls(
            certfile=self.get("cert_file"),
            keyfile=self.get("key_file"),
            ca_certs=self.get("ca_file") if demanded else None,
            alpn=self.get("alpn"),
            **self._keylog(),
        )

    def _keylog(self) -> dict[str, Any]:
        return {"keylog_file": self._values["keylog_file"]} if "keylog_file" in self._values else {}

    def timeout(self) -> Timeout:
        """A client's deadlines."""
        read = self.get("read_timeout_ms") / 1000
        write = self.get("write_timeout_ms", 60_000) / 1000
        return Timeout(self.get("connect_timeout_ms") / 1000, read, write, read)

    def stores(self) -> dict[str, Any]:
        """Where tickets go, as `quicgreen.settings` knows it."""
        names = settings.load({}).keys()
        return {name: value for name, value in self._values.items() if name in names}

    def warn_of(self, side: str) -> None:
        """Name the settings that do nothing on this `side`, "client" or "server"."""
        for name in self._values:
            if OPTIONS[name].side not in ("both", side):
                text = f"{name} does nothing here: it is for a {OPTIONS[name].side}"
                warn(text, QuicWarningInvalidParameters)


def _mapping(options: Any) -> Mapping[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise error("argument", f"options are a mapping or a Config, not {type(options).__name__}")
    return options


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in ALIASES:
            old, name = name, ALIASES[name]
            warn(f"{old} is called {name} now", QuicWarningDeprecatedFeature)
            if given.get(name) is not None:
                raise error("argument", f"{old} and {name} are the same setting")
        if name in UNAVAILABLE:
            accepted, reason = UNAVAILABLE[name]
            if value is not accepted and not (value == accepted and type(value) is type(accepted)):
                raise error("argument", f"{name}={value!r}: {reason}")
        elif name not in OPTIONS:
            warn(f"{name!r} is not a setting{_meant(name)}", QuicWarningInvalidParameters)
        else:
            try:
                values[name] = OPTIONS[name].check(value)
            except ValueError as e:
                raise error("argument", f"{name} is {e}, not {value!r}") from None
    return values


def _meant(name: Any) -> str:
    close = difflib.get_close_matches(str(name), OPTIONS, 1)
    return f": did you mean {close[0]}?" if close else "; docs/quicpro.md lists them"
