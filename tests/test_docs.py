"""The documentation against the code: the page of errors, links, and the examples.

`python tests/test_docs.py` writes the generated parts of the page of errors anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from helpers import reference
from support import WARNINGS, hello, serving

import quicgreen
from quicgreen.cli import meanings
from quicgreen.testing import Certificate

ROOT = Path(__file__).resolve().parent.parent


def test_the_generated_parts_of_the_page_of_errors_are_current() -> None:
    page = reference.PAGE.read_text()
    assert page == reference.renewed(page), "run: python tests/test_docs.py"


def test_every_row_of_the_page_of_errors_has_a_recipe_of_its_own() -> None:
    """Which says what comes, and runs below."""
    recipes = reference.headings(reference.PAGE.read_text())
    rows = [*reference.EXCEPTIONS, *reference.WARNINGS, *reference.MESSAGES, *meanings.CODES]
    rows.append("quicpro_get_last_error")
    assert [row for row in rows if recipes.get(row, "").count("```python") < 1] == []
    assert len(set(recipes.values())) == len(recipes)


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    links = [x for x in re.findall(r"\]\(([^)#]+)", text) if "://" not in x]
    missing = [x for x in links if not (page.parent / x).exists()]
    paths = re.findall(r"`((?:cext|quicgreen|tests|docs|loadtests|examples)/[\w./-]*)[`/]", text)
    missing += [x for x in paths if "NAME" not in x and not (ROOT / x).exists()]
    assert missing == []


# ---------------------------------------------------------------- examples

WITH_EXAMPLES = {
    "load-testing": 2,
    "porting": 13,
    "sessions": 7,
    "tracing": 4,
    "websocket": 7,
    "ERROR_AND_EXCEPTION_REFERENCE": 27,
    "quicpro": 5,
}
"""Pages in docs whose examples are run, and how many there are at least."""

EXAMPLES = [
    (f"{page}-{number}", code)
    for page in WITH_EXAMPLES
    for number, code in enumerate(
        re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL
        )
    )
]


def test_every_example_says_what_it_prints() -> None:
    for page, count in WITH_EXAMPLES.items():
        assert sum(name.startswith(page) for name, _ in EXAMPLES) >= count
    assert all("# -> " in code for _, code in EXAMPLES)


def answer(request: quicgreen.Request) -> None:
    """What the examples of clients ask for."""
    if request.path == "/events":
        request.respond(200, {"content-type": "text/event-stream"}, "data: one\n\ndata: two\n\n")
        return
    if not request.is_websocket:
        hello(request)
        return
    with request.accept_websocket() as ws:
        if request.path == "/countdown":
            for number in "321":
                ws.send(number)
            ws.close(1000, "lift-off")
        for message in ws:
            ws.send(message)
            if request.path == "/chat":  # ... which is about to close
                ws.close(1000, "good night")


@pytest.mark.parametrize("code", [code for _, code in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_an_example_prints_what_it_says(
    code: str, tmp_path: Path, segment_path: str, certificate: Certificate
) -> None:
    """As a program of its own, against a server that takes early data; or its own server, with our files."""
    expected = re.findall(r"# -> (.*)", code)
    for name, path in (
        ("cert.pem", certificate.certfile),
        ("key.pem", certificate.keyfile),
        ("ca.pem", certificate.ca_certs),
    ):
        (tmp_path / name).symlink_to(path)
    environment = {
        **os.environ,
        "PYTHONWARNINGS": WARNINGS,
        "SSL_CERT_FILE": certificate.ca_certs,
        "XDG_CACHE_HOME": str(tmp_path),
        "QUICPRO_SHM_PATH": segment_path,
    }
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    faulty = reference.Faulty(answer)
    with serving(faulty, ("", 0), **files, early_data=True, websocket=True) as server:
        port = reference.free_port() if "Server(" in code else server.server_port
        with reference.neighbours(code, port, certificate) as text:
            run = gevent.get_hub().threadpool.apply(
                subprocess.run,
                ([sys.executable, "-c", text],),
                {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 40},
            )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == expected


if __name__ == "__main__":
    reference.PAGE.write_text(reference.renewed(reference.PAGE.read_text()))
