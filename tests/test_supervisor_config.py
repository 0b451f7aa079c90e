"""Where settings may come from, and which place counts."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from quicgreen import QuicConfiguration, QuicServerException, QuicWarningInvalidParameters
from quicgreen.supervisor.config import FIELDS, HOOKS, Settings, add_options, load


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_the_command_line_comes_before_the_environment_that_before_the_file_and_that_before_the_default(
    write: Any,
) -> None:
    file = write("c.toml", "[quicgreen]\nworkers = 2\ntimeout = 2\nmax_requests = 2\n")
    loaded = load({"workers": 4}, file, {"QUICGREEN_WORKERS": "3", "QUICGREEN_TIMEOUT": "3"})
    found = loaded.settings
    assert (found.workers, found.timeout, found.max_requests, found.graceful_timeout) == (4, 3.0, 2, 30.0)
    assert loaded.sources == {"workers": "command line", "timeout": "QUICGREEN_TIMEOUT", "max_requests": file}


def test_web_concurrency_counts_less_than_our_own_variable() -> None:
    assert load({}, None, {"WEB_CONCURRENCY": "3"}).settings.workers == 3
    both = {"WEB_CONCURRENCY": "3", "QUICGREEN_WORKERS": "5"}
    assert load({}, None, both).settings.workers == 5


def test_a_python_file_has_hooks_and_computes(write: Any) -> None:
    file = write(
        "c.py",
        "import os\nhelper = 1\nworkers = 1 + helper\napp = 'a:b'\ntransport = {'max_idle_ms': 5}\n"
        "def when_ready(supervisor): supervisor.append(1)\n",
    )
    loaded = load({}, file, {})
    assert (loaded.settings.workers, loaded.app) == (2, "a:b")
    assert loaded.settings.transport == QuicConfiguration(max_idle_ms=5)
    called: list[int] = []
    loaded.settings.hook("when_ready", called)
    loaded.settings.hook("on_exit", called)
    assert called == [1]


def test_a_toml_file_has_a_table_for_the_transport(write: Any) -> None:
    file = write("c.toml", "[quicgreen.transport]\nmax_idle_ms = 7\n")
    assert load({}, file, {}).settings.transport.max_idle_ms == 7


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.toml", "[quicgreen]\nworkerz = 1", "workerz is not a setting; is it workers?"),
        ("c.toml", "[quicgreen]\nworkers = 0", "c.toml: workers is a number from 1 to 128, not 0"),
        ("c.toml", "[quicgreen]\nworkers = 1.5", "workers is a number"),
        ("c.toml", "[quicgreen]\nhooks = 1", "hooks is not a setting"),
        ("c.toml", "[quicgreen.transport]\nmax_idel_ms = 1", "is it max_idle_ms"),
        ("c.toml", "quicgreen = 1", "is a table"),
        ("c.toml", "[quicgreen", "c.toml: "),
        ("c.toml", "[quicgreen]\ntransport = 1", "transport is a table"),
        ("c.toml", "[quicgreen]\napp = 1", "MODULE:HANDLER"),
        ("c.py", "1 / 0", "ZeroDivisionError"),
        ("c.py", "workers = (", "SyntaxError"),
        ("c.py", "def when_ready(): pass", "when_ready takes 1 arguments"),
        ("c.py", "when_ready = 1", "is a function"),
        ("c.py", "timeout = 'long'", "timeout is a number of seconds, not 'long'"),
        ("c.py", "keyfile = 'k'", "keyfile without certfile"),
        ("c.py", "max_requests_jitter = 5", "without max_requests"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(write: Any, name: str, text: str, words: str) -> None:
    with pytest.raises(QuicServerException) as caught:
        load({}, write(name, text), {})
    assert words in str(caught.value)
    assert caught.value.cause == "configuration"


def test_an_environment_that_cannot_be_used_names_the_variable() -> None:
    with pytest.raises(QuicServerException, match="QUICGREEN_EARLY_DATA: early_data is true or false"):
        load({}, None, {"QUICGREEN_EARLY_DATA": "perhaps"})


def test_no_such_file() -> None:
    with pytest.raises(QuicServerException, match=r"/no/such/file.toml: No such file"):
        load({}, "/no/such/file.toml", {})


def test_a_slip_in_a_python_file_is_warned_of(write: Any) -> None:
    with pytest.warns(QuicWarningInvalidParameters, match="is it graceful_timeout"):
        load({}, write("c.py", "gracefull_timeout = 5\nother = 1\n"), {})


def test_options_for_all_settings() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert vars(parser.parse_args([])) == {}
    given = parser.parse_args(["-w", "3", "--preload", "--bind", "[::1]:1", "--timeout", "2"])
    assert vars(given) == {"workers": 3, "preload_app": True, "bind": "[::1]:1", "timeout": 2.0}
    with pytest.raises(SystemExit):
        parser.parse_args(["-w", "many"])


def test_every_default_is_right() -> None:
    for item in FIELDS.values():
        if item.metadata and item.default is not None:
            assert item.metadata["check"](item.default) == item.default, item.name


def test_what_is_printed_is_what_counts() -> None:
    text = str(load({"workers": 2}, None, {"QUICGREEN_RETRY": "always"}))
    assert "workers = 2  # command line" in text
    assert "retry = 'always'  # QUICGREEN_RETRY" in text
    assert "timeout = 30.0  # default" in text
    assert all(f"{name} = " in text for name in FIELDS)


def test_settings_of_a_call_are_checked_too() -> None:
    assert Settings(workers=2, hooks={"on_exit": print}).workers == 2
    with pytest.raises(QuicServerException, match="workers"):
        Settings(workers=0)
    with pytest.raises(QuicServerException, match="not a hook"):
        Settings(hooks={"on_fire": print})
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().workers = 3  # type: ignore[misc]


def test_hooks_are_gunicorn_s() -> None:
    assert {"on_starting", "when_ready", "pre_fork", "post_fork", "worker_exit", "child_exit"} <= HOOKS.keys()
