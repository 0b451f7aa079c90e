"""Users, each with a connection of its own, or on shared ones."""

from __future__ import annotations

import gevent
import pytest
from gevent.pool import Group
from helpers.locusts import Reports, make_user
from locust import task
from locust.exception import StopTest, StopUser
from support import PATIENCE_S, check_python, counters, nothing_left_behind, serving, wait_until

import quicgreen
from quicgreen.locust import QuicUser
from quicgreen.testing import Certificate


@pytest.fixture
def reports() -> Reports:
    return Reports()


def who(request: quicgreen.Request) -> None:
    """Says from which connection it came."""
    agent = request.headers.get("user-agent")
    request.respond(200, {"x-agent": agent or ""}, str(request.remote_address))


class Once(QuicUser):
    """Asks once, and is done when it is told."""

    abstract = True
    done = gevent.event.Event()

    @task
    def ask(self) -> None:
        self.client.get("/")
        self.done.wait()
        raise StopUser


def test_each_user_has_its_own_connection_and_closes_it(reports: Reports) -> None:
    """A user ends as locust has it: by itself, or killed."""
    with nothing_left_behind(), serving(who) as server:
        Once.done = gevent.event.Event()
        users = [make_user(reports, server, Once) for _ in range(5)]
        group = Group()
        for user in users:
            user.start(group)
        assert wait_until(lambda: len(reports.all) == 5)
        assert counters()["connections"] == 10  # both ends are in this process
        users[0].stop(force=True)
        Once.done.set()
        assert group.join(PATIENCE_S)
        assert wait_until(lambda: counters()["connections"] == 0)
    assert len({r["response"].connection for r in reports.all}) == 5
    assert all(r["exception"] is None for r in reports.all)


def test_users_may_share_connections(reports: Reports) -> None:
    with nothing_left_behind(), serving(who) as server:
        shared = quicgreen.Session(verify=False)
        Once.done = gevent.event.Event()
        Once.done.set()
        group = Group()
        for _ in range(5):
            make_user(reports, server, Once, session=shared).start(group)
        assert group.join(PATIENCE_S)
        assert len({r["response"].connection for r in reports.all}) == 1
        # The users are gone, and it goes on for others.
        assert shared.get(server_url(reports)).status_code == 200
        shared.close()


def server_url(reports: Reports) -> str:
    url: str = reports.last["url"]
    return url


def test_a_user_resumes_its_own_sessions_and_nobody_else_s(reports: Reports) -> None:
    """In the world it would be another machine."""
    with nothing_left_behind(), serving(who, early_data=True) as server:
        one, other = (make_user(reports, server) for _ in range(2))
        first = one.client.get("/").connection
        assert wait_until(lambda: first.export_ticket() is not None)
        assert other.client.get("/").connection.is_resumed is False
        first.close()
        assert wait_until(lambda: first.closed)
        again = one.client.get("/").connection
        again.wait_established()
        assert (again is first, again.is_resumed) == (False, True)
        for user in (one, other):
            user.client.session.close()


def test_settings(reports: Reports, certificate: Certificate) -> None:
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with nothing_left_behind(), serving(who, **files) as server:
        settings = {
            "insecure": False,
            "verify": certificate.ca_certs,
            "default_headers": {"User-Agent": "me"},
        }
        trusting = make_user(reports, server, **settings)
        assert trusting.client.get("/").headers["x-agent"] == "me"
        doubting = make_user(reports, server, insecure=False)
        assert isinstance(doubting.client.get("/").error, quicgreen.QuicTlsHandshakeException)
        hasty = make_user(reports, server, network_timeout=7, connection_timeout=3, keepalive_expiry=5)
        timeout = hasty.client.session.timeout
        assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (3, 7, 7, 7)
        assert hasty.client.session.limits.keepalive_expiry == 5
        for user in (trusting, doubting):
            user.client.session.close()


@pytest.mark.parametrize("host", [None, "http://plain.example", "example.org"])
def test_a_host_that_cannot_be(reports: Reports, host: str | None) -> None:
    with pytest.raises(StopTest, match="https://"):
        type("Tested", (QuicUser,), {"host": host})(reports.environment)


def test_without_locust_it_says_what_to_install() -> None:
    said = check_python(
        """
        import sys
        sys.modules["locust"] = None
        import quicgreen
        try:
            import quicgreen.locust
        except ImportError as e:
            print(e)
        """
    )
    assert said == "quicgreen.locust needs locust: pip install 'quicgreen[locust]'\n"


def test_a_locustfile_is_patched_as_locust_s_users_expect_it() -> None:
    check_python(
        """
        from quicgreen.locust import QuicUser
        from gevent.monkey import is_module_patched
        assert is_module_patched("socket") and is_module_patched("ssl")
        """
    )
