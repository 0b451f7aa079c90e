from __future__ import annotations

from support import check_python


def test_a_patched_program_has_them_and_no_hub_comes_of_their_use() -> None:
    check_python(
        """
        from gevent import monkey
        monkey.patch_all()
        import os, signal
        from gevent._hub_local import get_hub_if_exists
        from quicgreen.supervisor import unpatched as u
        assert u.fork is not os.fork
        u.signal(signal.SIGCHLD, lambda *_: None)
        u.getaddrinfo("127.0.0.1", 1)
        r, w = os.pipe()
        p = u.poll()
        p.register(r)
        assert p.poll(1) == []
        s = u.Socket()
        s.close()
        pid = u.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(u.waitpid(pid, 0)[1]) == 7
        assert get_hub_if_exists() is None
        """
    )
