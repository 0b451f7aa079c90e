from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quicgreen import QuicServerException
from quicgreen.supervisor.pidfile import PidFile, read


def test_it_is_written_and_removed(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path / "pid"))
    file.create()
    assert read(file.path) == os.getpid()
    assert os.listdir(tmp_path) == ["pid"]
    file.create()  # it is ours
    file.remove()
    assert os.listdir(tmp_path) == []
    file.remove()


def test_a_process_that_lives_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(QuicServerException, match=f"is of process {os.getppid()}, which runs"):
        PidFile(str(path)).create()
    PidFile(str(path)).remove()
    assert path.exists()


@pytest.mark.parametrize("text", ["", "nonsense", "-1", "99999999999999999999", "٣", "\ufffd"])
def test_what_names_no_process_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    assert read(str(path)) is None
    PidFile(str(path)).create()
    assert read(str(path)) == os.getpid()


def test_the_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = "import os; print(os.getpid())"
    path.write_text(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    PidFile(str(path)).create()
    assert read(str(path)) == os.getpid()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(QuicServerException, match="No such file"):
        PidFile(str(tmp_path / "no" / "pid")).create()
    assert read(str(tmp_path)) is None
