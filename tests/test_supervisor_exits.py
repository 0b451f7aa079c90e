from __future__ import annotations

from support import run_python

from quicgreen.supervisor import exits


def test_a_worker_ends_with_its_own_last_words_and_not_its_supervisor_s() -> None:
    run = run_python(
        """
        import atexit, os
        from quicgreen.supervisor import exits
        atexit.register(print, "of the supervisor")
        try:
            pid = os.fork()
            if pid == 0:
                exits.forget()
                atexit.register(print, "of the worker")
                print("buffered", end=" ")
                exits.leave(exits.APP_ERROR)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        finally:
            print("above")
        """
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == ["buffered of the worker", "4", "above", "of the supervisor"]


def test_what_fails_at_the_end_does_not_hold_it_up() -> None:
    run = run_python(
        """
        import atexit, os, sys
        from quicgreen.supervisor import exits
        atexit.register(lambda: sys.exit(9))
        sys.stdout.close()
        exits.leave(exits.BOOT_ERROR)
        """
    )
    assert run.returncode == 3


def test_how_a_process_ended() -> None:
    assert exits.words(3) == "status 3"
    assert exits.words(-9) == "signal SIGKILL"
    assert exits.words(-50) == "signal 50"
