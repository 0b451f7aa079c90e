"""AF_XDP on a cable between two hosts: what goes by it, what does not, and what it does to neither.

Where the kernel has no AF_XDP, these fail and say so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers import netns
from helpers.processes import Peer, run_client

from quicgreen.testing import Authority, Certificate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SIZE = 5_000_000
PORT = 4433


@pytest.fixture(scope="module", params=[1, 2], ids=["one-queue", "two-queues"])
def hosts(request: pytest.FixtureRequest) -> Iterator[netns.Hosts]:
    try:
        hosts = netns.Hosts(request.param)
    except netns.NamespaceError as e:
        pytest.fail(str(e), pytrace=False)
    with hosts:
        yield hosts
    assert netns.left_behind() == []


class Server(Peer):
    """Ours, on the server's host; by AF_XDP unless told otherwise. Its counters are asked for within the
    host: by loopback, and so by the UDP socket."""

    def __init__(self, hosts: netns.Hosts, certificate: Certificate, **options: Any) -> None:
        self.prefix = [*hosts.server.prefix, *options.pop("wrapper", ())]
        self.certificate = certificate
        given = {"host": "::", "port": PORT, "xdp": "wire", "websocket": True, "early_data": True}
        super().__init__(
            "our_server.py",
            prefix=self.prefix,
            certfile=certificate.certfile,
            keyfile=certificate.keyfile,
            **{**given, "fresh_register": True, **options},
        )

    def counters(self) -> dict[str, int]:
        """Those of the engine, without what asking for them takes."""
        told = run_client(
            "aioquic_client.py",
            prefix=self.prefix,
            **{"host": "localhost", "ip": "::1", "port": self.port, "ca": self.certificate.ca_certs},
            rounds=[[{"path": "/counters"}]],
        )
        counters: dict[str, int] = json.loads(told["rounds"][0]["answers"][0]["content"])["engine"]
        return counters


@pytest.fixture(scope="module")
def certificate(certificates: Authority, hosts: netns.Hosts) -> Certificate:
    return certificates.issue("localhost", "127.0.0.1", "::1", hosts.server.ip, hosts.server.ip6)


@pytest.fixture
def server(hosts: netns.Hosts, certificate: Certificate) -> Iterator[Server]:
    with Server(hosts, certificate) as server:
        assert server.said == ""  # a reason would be there
        yield server


def client(hosts: netns.Hosts, certificate: Certificate, **options: Any) -> dict[str, Any]:
    given = {
        "servers": [[hosts.server.ip, PORT], [hosts.server.ip6, PORT]],
        "ca": certificate.ca_certs,
        "size": SIZE,
    }
    return run_client("xdp_client.py", prefix=hosts.client.prefix, **{**given, **options})


def on(host: netns.Host, *command: str, **options: Any) -> str:
    run = subprocess.run(
        [*host.prefix, *command], capture_output=True, text=True, timeout=30, check=True, **options
    )
    return run.stdout


def check_clean(engine: dict[str, int]) -> None:
    assert engine["xdp_dropped"] == engine["xdp_invalid"] == engine["xdp_bad_frames"] == 0


# ---------------------------------------------------------------- what goes by it


def test_everything_goes_past_the_system(
    hosts: netns.Hosts, server: Server, certificate: Certificate
) -> None:
    """GET, POST, a WebSocket and early data, over IPv4 and IPv6, of a client with a plain UDP socket."""
    before = server.counters()
    told = client(hosts, certificate, websocket=True, early=True)
    after = server.counters()
    for one in told["told"]:
        assert one["download"]
        assert one["upload"]
        assert one["websocket"] == ["hello", 100_000]
        assert one["early"] == [200, True, True]
    assert told["engine"]["xdp_received"] == 0
    came, left = (after[f"xdp_{way}"] - before[f"xdp_{way}"] for way in ("received", "sent"))
    assert came > 2 * SIZE / 1500
    assert left > 2 * SIZE / 1500
    # All of it: of what the socket had, only what asked for the counters is left.
    assert told["engine"]["datagrams_sent"] - came == 0
    by_socket = (after["datagrams_received"] - before["datagrams_received"]) - came
    assert 0 < by_socket < 60
    check_clean(after)


def test_a_client_goes_past_the_system_too(
    hosts: netns.Hosts, server: Server, certificate: Certificate
) -> None:
    """But for its first packets, which the system has to find the way for."""
    told = client(hosts, certificate, xdp="wire", websocket=True, early=True)
    engine = told["engine"]
    for one in told["told"]:
        assert one["download"]
        assert one["upload"]
        assert one["early"] == [200, True, True]
    assert engine["xdp_received"] == engine["datagrams_received"] > 2 * SIZE / 1500
    assert 0 < engine["datagrams_sent"] - engine["xdp_sent"] < 20
    check_clean(engine)
    check_clean(server.counters())


@pytest.mark.parametrize("bound", ["10.98.0.2", "fd98::2", "0.0.0.0"])
def test_a_server_at_one_address(hosts: netns.Hosts, certificate: Certificate, bound: str) -> None:
    with Server(hosts, certificate, host=bound) as server:
        ip = hosts.server.ip6 if ":" in bound else hosts.server.ip
        told = client(hosts, certificate, servers=[[ip, PORT]], size=100_000)
        assert told["told"][0]["download"]
        link = hosts.link(hosts.server)
        assert "xdp" in link
        assert server.said == ""


def test_other_clients(hosts: netns.Hosts, server: Server, certificate: Certificate) -> None:
    """aioquic and curl."""
    before = server.counters()["xdp_received"]
    for ip in (hosts.server.ip, hosts.server.ip6):
        told = run_client(
            "aioquic_client.py",
            prefix=hosts.client.prefix,
            **{"host": "localhost", "ip": ip, "port": PORT, "ca": certificate.ca_certs},
            rounds=[[{"path": "/size/300000"}, {"method": "POST", "path": "/sink", "size": 300_000}]],
        )["rounds"][0]
        assert [a["status"] for a in told["answers"]] == [200, 200]
        assert told["answers"][0]["length"] == 300_000
    told = run_client(
        "curl_client.py",
        prefix=hosts.client.prefix,
        ca=certificate.ca_certs,
        requests=[{"url": f"https://{hosts.server.ip}:{PORT}/size/300000"}],
    )
    assert told["answers"][0]["length"] == 300_000
    after = server.counters()
    assert after["xdp_received"] - before > 300
    check_clean(after)


# ---------------------------------------------------------------- what does not

OTHERS = """
import json, socket, struct, sys
ip = sys.argv[1]
told = {}
with socket.create_connection((ip, 4433), timeout=5) as tcp:
    tcp.sendall(b"over TCP")
    told["tcp"] = tcp.recv(100).decode()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(5)
    udp.sendto(b"over UDP", (ip, 4434))
    told["udp"] = udp.recv(100).decode()
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
    icmp.settimeout(5)
    request = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    checksum = struct.pack("!H", 0xFFFF - sum(struct.unpack("!4H", request)))
    icmp.sendto(request[:2] + checksum + request[4:], (ip, 0))
    told["echo"] = icmp.recv(100)[20]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:  # to the server's port, in fragments
    udp.setsockopt(socket.IPPROTO_IP, 10, 0)
    told["fragments"] = udp.sendto(bytes(5000), (ip, 4433))
print(json.dumps(told))
"""

ECHO = """
import socket, threading
tcp = socket.create_server(("", 4433))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 4434))
print("ready", flush=True)
def answer():
    while True:
        data, peer = udp.recvfrom(100)
        udp.sendto(data, peer)
threading.Thread(target=answer, daemon=True).start()
while True:
    c, _ = tcp.accept()
    c.sendall(c.recv(100))
    c.close()
"""


def test_what_is_not_ours_is_left_alone(hosts: netns.Hosts, server: Server) -> None:
    """TCP to the same port, UDP to another one, ICMP, fragments."""
    before = server.counters()
    echo = subprocess.Popen(
        [*hosts.server.prefix, sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True
    )
    try:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        told = json.loads(on(hosts.client, sys.executable, "-c", OTHERS, hosts.server.ip))
    finally:
        echo.kill()
        echo.wait()
        assert echo.stdout is not None
        echo.stdout.close()
    assert told == {"tcp": "over TCP", "udp": "over UDP", "echo": 0, "fragments": 5000}
    after = server.counters()
    assert after["xdp_received"] == before["xdp_received"]
    assert after["datagrams_junk"] > before["datagrams_junk"]  # the fragments, by the socket


# ---------------------------------------------------------------- ends


def answers(hosts: netns.Hosts, certificate: Certificate, patience_s: float = 10) -> dict[str, Any]:
    told = client(hosts, certificate, servers=[[hosts.server.ip, PORT]], gone_ms=int(patience_s * 1000))
    one: dict[str, Any] = told["told"][0]
    return one


def test_a_killed_server_leaves_nothing(hosts: netns.Hosts, certificate: Certificate) -> None:
    with Server(hosts, certificate) as server:
        assert answers(hosts, certificate)["answered"] == 200
        assert "xdp" in hosts.link(hosts.server)
        server.kill()
    assert wait(lambda: "xdp" not in hosts.link(hosts.server))
    with Server(hosts, certificate, xdp="") as server:  # by UDP, at once
        assert answers(hosts, certificate)["answered"] == 200
        assert server.counters()["xdp_received"] == 0
    with Server(hosts, certificate) as server:  # and by AF_XDP, although the system needs a moment
        assert answers(hosts, certificate)["answered"] == 200
        assert server.counters()["xdp_received"] > 0


def wait(condition: Any, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        gevent.sleep(0.05)
    return bool(done)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_an_interface_that_goes_down_and_comes_again(
    hosts: netns.Hosts, server: Server, certificate: Certificate
) -> None:
    assert answers(hosts, certificate)["answered"] == 200
    hosts.link(hosts.server, "down")
    before = cpu_s(server.pid)
    gone = answers(hosts, certificate, 1.5)
    assert gone["answered"] is None
    assert cpu_s(server.pid) - before < 0.5  # it rests
    assert server.counters()["requests_received"] > 0  # by loopback, meanwhile
    hosts.link(hosts.server, "up")
    assert answers(hosts, certificate)["answered"] == 200
    had = server.counters()["xdp_received"]
    assert answers(hosts, certificate)["answered"] == 200
    assert server.counters()["xdp_received"] > had


# ---------------------------------------------------------------- behind the driver


def test_behind_the_driver(certificates: Authority) -> None:
    """On a bridge, which has no XDP itself. Packets of a host of this machine may be several in one there."""
    with netns.Hosts() as hosts:
        for words in (
            "link add bridge type bridge",
            "address flush dev wire",
            "link set wire master bridge",
            f"address add {hosts.server.ip}/24 dev bridge",
            f"address add {hosts.server.ip6}/64 dev bridge nodad",
            "link set bridge up",
        ):
            on(hosts.server, "ip", *words.split())
        certificate = certificates.issue("localhost", "::1", hosts.server.ip, hosts.server.ip6)
        with Server(hosts, certificate, xdp="bridge") as server:
            assert server.said == ""
            assert "xdpgeneric" in on(hosts.server, "ip", "link", "show", "bridge")
            assert answers(hosts, certificate)["answered"] == 200
            for _ in range(3):
                for one in client(hosts, certificate)["told"]:
                    assert one["download"]
                    assert one["upload"]
            check_clean(server.counters())


# ---------------------------------------------------------------- what cannot be had


def check_refused(hosts: netns.Hosts, certificate: Certificate, reason: str, **options: Any) -> None:
    """Served by the UDP socket, and the log says why."""
    with Server(hosts, certificate, **options) as server:
        assert re.search(f"^QUICPRO_XDP=.*: {reason}.*; the UDP socket is used$", server.said, re.M), (
            server.said
        )
        told = client(hosts, certificate, servers=[[hosts.server.ip, server.port]], size=100_000)
        assert told["told"][0]["upload"]
        assert server.counters()["xdp_received"] == 0


def test_it_is_not_permitted(hosts: netns.Hosts, certificate: Certificate) -> None:
    without = ("setpriv", "--bounding-set=-net_raw,-net_admin,-bpf,-sys_admin")
    reason = ".* is not permitted: it needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF"
    check_refused(hosts, certificate, reason, wrapper=without)


def test_enough_is_permitted(hosts: netns.Hosts, certificate: Certificate) -> None:
    """With those three, leave to lock memory, and to read the tests' files."""
    only = ("setpriv", "--bounding-set=-all,+net_raw,+net_admin,+bpf,+ipc_lock,+dac_override")
    with Server(hosts, certificate, wrapper=only) as server:
        assert server.said == ""
        assert answers(hosts, certificate)["answered"] == 200
        assert "xdp" in hosts.link(hosts.server)


def test_no_memory_may_be_locked(hosts: netns.Hosts, certificate: Certificate) -> None:
    without = ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock")
    check_refused(hosts, certificate, ".* raise RLIMIT_MEMLOCK", wrapper=without)


def test_somebody_has_it(hosts: netns.Hosts, server: Server, certificate: Certificate) -> None:
    check_refused(hosts, certificate, "somebody else has it", port=PORT + 1)


def test_the_address_is_another_interface_s(hosts: netns.Hosts, certificate: Certificate) -> None:
    with Server(hosts, certificate, host="127.0.0.1") as server:
        assert "it has no address that is served here; the UDP socket is used" in server.said


# ---------------------------------------------------------------- how fast


AND_COUNTERS = """
import json, runpy, sys
from quicgreen import hub
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps(hub.current().engine.counters()))
"""


def test_busy_poll_rtt_in_microseconds(hosts: netns.Hosts, server: Server, certificate: Certificate) -> None:
    """The example, on both sides by AF_XDP, and spinning."""
    before = server.counters()["xdp_received"]
    script = EXAMPLES / "busy_poll_rtt.py"
    said = on(
        hosts.client,
        *("env", f"SSL_CERT_FILE={certificate.ca_certs}", f"PYTHONPATH={EXAMPLES}"),
        *(sys.executable, "-c", AND_COUNTERS, str(script), hosts.server.ip, str(PORT), "wire"),
    )
    print(said)
    assert "QUICPRO_XDP=wire: AF_XDP, in the interface's driver" in said
    engine = json.loads(said.splitlines()[-1])
    assert engine["xdp_received"] == engine["datagrams_received"] > 100
    assert engine["spins"] > 0
    assert engine["spin_hits"] > 0
    check_clean(engine)
    found = re.search(r"^RTT: (\d+\.\d) µs$", said, re.M)
    assert found
    assert 1 < float(found[1]) < 1e6
    after = server.counters()
    assert after["xdp_received"] > before
    check_clean(after)
