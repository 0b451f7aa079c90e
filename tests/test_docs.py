"""The documentation against the code: the page of errors, and links.

`python tests/test_docs.py` writes the page of errors anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quicgreen import exceptions
from quicgreen.exceptions import CAUSES

ROOT = Path(__file__).resolve().parent.parent
ERRORS = ROOT / "docs" / "errors.md"

_HEADER = """\
# Errors

Made from `CAUSES` in `quicgreen/exceptions.py`. Every exception has `cause`, `code`, `wire_code`,
`remote` and `request_sent`; all classes are below `QuicException`, which is an `OSError`.

| cause | class | code | what it says | what to do |
|---|---|---|---|---|
"""


def errors_page() -> str:
    codes = {
        value: name
        for name, value in vars(exceptions).items()
        if name.startswith("QUIC_ERROR_") and isinstance(value, int)
    }
    rows = [
        f"| `{name}` | `{c.exception.__name__}` | `{codes[c.code]}` | {c.message} | {c.advice} |\n"
        for name, c in CAUSES.items()
    ]
    return _HEADER + "".join(rows)


def test_errors_page_is_current() -> None:
    assert ERRORS.read_text() == errors_page(), "run: python tests/test_docs.py"


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    links = [x for x in re.findall(r"\]\(([^)#]+)", text) if "://" not in x]
    missing = [x for x in links if not (page.parent / x).exists()]
    paths = re.findall(r"`((?:cext|quicgreen|tests|docs|loadtests|examples)/[\w./-]*)[`/]", text)
    missing += [x for x in paths if "NAME" not in x and not (ROOT / x).exists()]
    assert missing == []


if __name__ == "__main__":
    ERRORS.write_text(errors_page())
