"""What a supervisor and its workers are told: `Settings`, and where each of them may come from.

The first place that has one counts: the command line (or the call), the environment (`QUICGREEN_WORKERS`),
the file of `-c` (TOML, or Python, which may have hooks too), the default. Names are gunicorn's where
gunicorn has them.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..configuration import QuicConfiguration
from ..exceptions import QuicException, QuicWarningInvalidParameters, error
from . import values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from argparse import ArgumentParser

HOOKS = {
    "on_starting": 1,
    "on_reload": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "worker_int": 1,
    "worker_abort": 1,
    "pre_request": 2,
    "post_request": 2,
    "child_exit": 2,
    "worker_exit": 2,
    "nworkers_changed": 3,
    "on_exit": 1,
}
"""Name -> how many arguments it gets. (supervisor), (supervisor, worker), (worker), (worker, request), and
(supervisor, now, before) of nworkers_changed."""

Hooks = Mapping[str, Callable[..., Any]]


def _setting(
    default: Any, *flags: str, check: Callable[[Any], Any], help: str, metavar: str | None = None
) -> Any:
    return field(default=default, metadata={"flags": flags, "check": check, "help": help, "metavar": metavar})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. Seconds unless a name says otherwise.

    Raises:
        QuicServerException: a value is not of its kind, or two do not go together.
    """

    bind: str = _setting(
        "127.0.0.1:4433", "-b", "--bind", check=values.address, metavar="HOST:PORT", help="address to serve"
    )
    workers: int = _setting(
        1, "-w", "--workers", check=values.number(1, 128), metavar="N",
        help="worker processes, under a supervisor (WEB_CONCURRENCY counts too)",
    )  # fmt: skip
    interface: str = _setting(
        "native", "--interface", check=values.choice("native", "session"),
        help="what HANDLER takes: a Request, or a connection whose requests it accepts",
    )  # fmt: skip
    certfile: str | None = _setting(
        None, "--certfile", check=values.text, metavar="FILE", help="certificate chain (PEM)"
    )
    keyfile: str | None = _setting(
        None, "--keyfile", check=values.text, metavar="FILE",
        help="its key (PEM); may stand in the certificate file",
    )  # fmt: skip
    ca_certs: str | None = _setting(
        None, "--ca-certs", check=values.text, metavar="FILE",
        help="demand client certificates signed by one of these",
    )  # fmt: skip
    spawn: str | int = _setting(
        "default", "--spawn", check=values.spawn, metavar="HOW",
        help="default, raw, or how many handlers may run at once in a worker",
    )  # fmt: skip
    retry: str = _setting(
        "never", "--retry", check=values.choice("never", "always", "auto"), help="prove client addresses"
    )
    early_data: bool = _setting(
        False, "--early-data", check=values.flag,
        help="take requests of returning clients before their handshake is complete (0-RTT)",
    )  # fmt: skip
    websocket: bool = _setting(False, "--websocket", check=values.flag, help="let clients ask for WebSockets")
    max_connections: int = _setting(
        100_000, "--max-connections", check=values.number(1, 1 << 24), metavar="N",
        help="of one worker; more are not answered",
    )  # fmt: skip
    graceful_timeout: float = _setting(
        30.0, "--graceful-timeout", check=values.seconds, metavar="SECONDS",
        help="how long requests may still run when a worker ends",
    )  # fmt: skip
    timeout: float = _setting(
        30.0, "-t", "--timeout", check=values.seconds, metavar="SECONDS",
        help="a worker that gives no sign of life for so long is killed, and replaced; 0: never",
    )  # fmt: skip
    max_requests: int = _setting(
        0, "--max-requests", check=values.number(0, 1 << 40), metavar="N",
        help="replace a worker after so many requests; 0: never",
    )  # fmt: skip
    max_requests_jitter: int = _setting(
        0, "--max-requests-jitter", check=values.number(0, 1 << 40), metavar="N",
        help="and up to so many more, at random, so that not all are replaced at once",
    )  # fmt: skip
    ticket_key_rotate_s: int = _setting(
        3600, "--ticket-key-rotate", check=values.number(1, 31_536_000), metavar="SECONDS",
        help="new session tickets are sealed with a new key this often",
    )  # fmt: skip
    ticket_keys: int = _setting(
        25, "--ticket-keys", check=values.number(2, 64), metavar="N",
        help="keys that still open tickets: these live N - 1 rotations",
    )  # fmt: skip
    steering: str = _setting(
        "auto", "--steering", check=values.choice("auto", "bpf", "handover"),
        help="how packets find their worker: by a program in the kernel where that is possible, or from "
        "worker to worker",
    )  # fmt: skip
    affinity: str = _setting(
        "none", "--affinity", check=values.cpus, metavar="CPUS",
        help="tie each worker to one CPU: auto, or a list like 0,2-3",
    )  # fmt: skip
    pidfile: str | None = _setting(
        None, "-p", "--pid", check=values.text, metavar="FILE", help="where the supervisor's pid is written"
    )
    preload_app: bool = _setting(
        False, "--preload", check=values.flag,
        help="import the application once, before workers are forked (a reload does not import it anew)",
    )  # fmt: skip
    user: str | None = _setting(
        None, "-u", "--user", check=values.text, metavar="USER", help="workers run as this user"
    )
    group: str | None = _setting(
        None, "-g", "--group", check=values.text, metavar="GROUP", help="and this group"
    )
    proc_name: str | None = _setting(
        None, "-n", "--name", check=values.text, metavar="NAME",
        help="name of the processes in ps and top (needs setproctitle)",
    )  # fmt: skip
    chdir: str | None = _setting(
        None, "--chdir", check=values.text, metavar="DIR", help="change to this folder first"
    )
    no_patch: bool = _setting(
        False, "--no-patch", check=values.flag, help="do not monkey-patch the standard library"
    )
    qlog_dir: str | None = _setting(
        None, "--qlog-dir", check=values.text, metavar="DIR",
        help="each connection writes its qlog to a file of its own there",
    )  # fmt: skip
    log_level: str = _setting(
        "info", "--log-level", check=values.choice("debug", "info", "warning", "error"),
        help="what the supervisor and its workers write to stderr",
    )  # fmt: skip
    transport: QuicConfiguration = field(default_factory=QuicConfiguration)
    """Of a file: the table [quicgreen.transport], or a dict."""
    hooks: Hooks = field(default_factory=dict)
    """Functions by gunicorn's names (`HOOKS`), of a Python file or a call."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if "check" in item.metadata:
                value = getattr(self, item.name)
                if value != item.default:
                    object.__setattr__(self, item.name, _checked(item, value, ""))
        for name, hook in self.hooks.items():
            _check_hook(name, hook)
        if self.keyfile and not self.certfile:
            raise error("configuration", "keyfile without certfile")
        if self.qlog_dir is not None:
            object.__setattr__(self, "transport", dataclasses.replace(self.transport, qlog_dir=self.qlog_dir))
        if self.max_requests_jitter and not self.max_requests:
            raise error("configuration", "max_requests_jitter without max_requests")

    def hook(self, name: str, *arguments: Any) -> None:
        """Call it, if there is one."""
        if (function := self.hooks.get(name)) is not None:
            function(*arguments)


FIELDS = {f.name: f for f in dataclasses.fields(Settings)}
_ON_COMMAND_LINE = {name: f for name, f in FIELDS.items() if f.metadata}


def _checked(item: dataclasses.Field[Any], value: Any, source: str) -> Any:
    try:
        return item.metadata["check"](value)
    except ValueError as e:
        where = f"{source}: " if source else ""
        raise error("configuration", f"{where}{item.name} is {e}, not {value!r}") from None


def _check_hook(name: str, hook: Any) -> None:
    if name not in HOOKS:
        raise error("configuration", f"{name} is not a hook; there are {', '.join(HOOKS)}")
    if not callable(hook):
        raise error("configuration", f"the hook {name} is a function, not {hook!r}")
    try:
        inspect.signature(hook).bind(*range(HOOKS[name]))
    except TypeError:
        raise error("configuration", f"the hook {name} takes {HOOKS[name]} arguments") from None
    except ValueError:  # built in, without a signature
        pass


# ---------------------------------------------------------------- the command line


def add_options(parser: ArgumentParser) -> None:
    """An option for each setting. What is not given leaves no trace in the namespace."""
    from argparse import SUPPRESS

    for name, item in _ON_COMMAND_LINE.items():
        told: dict[str, Any] = {"dest": name, "help": item.metadata["help"], "default": SUPPRESS}
        check = item.metadata["check"]
        if check is values.flag:
            told["action"] = "store_true"
        elif hasattr(check, "choices"):
            told["choices"] = check.choices
        else:
            told["metavar"] = item.metadata["metavar"]
            if hasattr(check, "is_number"):
                told["type"] = _argument(check)
        parser.add_argument(*item.metadata["flags"], **told)


def _argument(check: Callable[[Any], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        from argparse import ArgumentTypeError

        try:
            return check(text)
        except ValueError as e:
            raise ArgumentTypeError(f"{e}, not {text!r}") from None

    return convert


# ---------------------------------------------------------------- all places


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each is from, and the application's name when a file gives it."""

    settings: Settings
    sources: Mapping[str, str]
    app: str | None

    def __str__(self) -> str:
        """A line for each setting, as `--print-config` prints it."""
        lines = [f"app = {self.app!r}"] if self.app else []
        for name in FIELDS:
            value = getattr(self.settings, name)
            if name == "hooks":
                value = sorted(value)
            elif name == "transport":
                value = {k: v for k, v in dataclasses.asdict(value).items() if v is not None}
            lines.append(f"{name} = {value!r}  # {self.sources.get(name, 'default')}")
        return "\n".join(lines)


def load(
    given: Mapping[str, Any], file: str | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Put them together. `given`: from the command line, or a call; `file`: that of `-c`.

    Raises:
        QuicServerException: a file that cannot be read, a name that is not known, a value not of its kind;
            says where it is from.
    """
    environ = os.environ if environ is None else environ
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    app = None
    if file is not None:
        table = read_file(file)
        app = table.pop("app", None)
        if app is not None and not isinstance(app, str):
            raise error("configuration", f"{file}: app is text of the form MODULE:HANDLER, not {app!r}")
        for name, value in table.items():
            chosen[name], sources[name] = value, file
    variables = {"WEB_CONCURRENCY": "workers"} | {f"QUICGREEN_{n.upper()}": n for n in _ON_COMMAND_LINE}
    for variable, name in variables.items():
        if environ.get(variable):
            chosen[name], sources[name] = environ[variable], variable
    for name, value in given.items():
        if value is None:
            continue
        chosen[name], sources[name] = value, "command line"
    for name in chosen.keys() & _ON_COMMAND_LINE.keys():
        chosen[name] = _checked(FIELDS[name], chosen[name], sources[name])
    return Loaded(Settings(**chosen), sources, app)


def read_file(path: str) -> dict[str, Any]:
    """The settings of a file: `.toml`, anything else is Python."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as e:
        raise error("configuration", f"{path}: {e.strerror}", errno=e.errno) from None
    found = _from_toml(path, text) if path.endswith(".toml") else _from_python(path, text)
    if "transport" in found:
        found["transport"] = _transport(path, found["transport"])
    return found


def _from_toml(path: str, text: bytes) -> dict[str, Any]:
    try:
        table = tomllib.loads(text.decode()).get("quicgreen", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise error("configuration", f"{path}: {e}") from None
    if not isinstance(table, dict):
        raise error("configuration", f"{path}: [quicgreen] is a table")
    known = (FIELDS.keys() | {"app"}) - {"hooks"}
    for name in table.keys() - known:
        raise error("configuration", f"{path}: {name} is not a setting{_like(name, known)}")
    return table


def _from_python(path: str, text: bytes) -> dict[str, Any]:
    module = types.ModuleType("quicgreen_configuration")
    module.__file__ = path
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as e:
        # Its author wants the traceback, which stays behind as the cause.
        raise error("configuration", f"{path}: {type(e).__name__}: {e}") from e
    found: dict[str, Any] = {}
    hooks = {}
    known = (FIELDS.keys() | {"app"} | HOOKS.keys()) - {"hooks"}
    for name, value in vars(module).items():
        if name in HOOKS:
            hooks[name] = value
        elif name in known:
            found[name] = value
        elif not name.startswith("_") and not callable(value) and (like := _like(name, known)):
            # A program has other names too, so only what looks like a slip is worth a word.
            warnings.warn(
                f"{path}: {name} is not a setting{like}", QuicWarningInvalidParameters, stacklevel=3
            )
    if hooks:
        found["hooks"] = hooks
    return found


def _transport(path: str, table: Any) -> QuicConfiguration:
    if isinstance(table, QuicConfiguration):
        return table
    if not isinstance(table, Mapping):
        raise error("configuration", f"{path}: transport is a table, not {table!r}")
    known = [f.name for f in dataclasses.fields(QuicConfiguration)]
    for name in table.keys() - set(known):
        raise error("configuration", f"{path}: transport.{name} is not a setting{_like(name, known)}")
    try:
        return QuicConfiguration(**table)
    except QuicException as e:
        raise error("configuration", f"{path}: transport: {e}") from None


def _like(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; is it {close[0]}?" if close else ""
