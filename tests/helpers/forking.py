"""A program that uses the network, looks up names all the time, and forks, so often as its argument says."""

FORKING = """
import _socket, contextlib, os, socket, sys
import gevent
from gevent import socket as gsocket
import quicgreen
from quicgreen import _contexts, forks
from quicgreen.configuration import ServerTls

cert, key = _contexts.self_signed("localhost")

def serve():
    tls = ServerTls(cert_pem=cert, key_pem=key)
    server = quicgreen.Server(("127.0.0.1", 0), lambda r: r.respond(200), tls=tls)
    server.start()
    return server, quicgreen.connect(*server.address, verify=False)

server, connection = serve()
connection.get("/")
going, looked = [True], []

def look():
    # As gevent's resolver has it done: lookups, one after the other, so that there are always some under way.
    while going:
        looked.append(forks.whole(_socket.getaddrinfo, ("localhost", 1)))

looking = [gevent.get_hub().threadpool.spawn(look) for _ in range(4)]
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # sees what each child's first packet says
sink.bind(("127.0.0.1", 0))
sink.setblocking(False)
ids = set()
for i in range(int(sys.argv[1])):
    looked.clear()
    while not looked:
        gevent.sleep(0.0005)
    if i % 20 == 10:
        assert connection.get("/").status_code == 200
    if (pid := os.fork()) == 0:
        with gevent.Timeout(30):
            with contextlib.suppress(quicgreen.QuicException):
                quicgreen.connect(*sink.getsockname(), verify=False, timeout=0.001)
            gsocket.getaddrinfo("localhost", 1)
            if i % 20 == 0:  # it all works there too
                mine, c = serve()
                assert c.get("/").status_code == 200
                c.close()
                mine.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = sink.recv(2000)  # a long header: RFC 9000, section 17.2
            dcid, rest = packet[6:6 + packet[5]], packet[6 + packet[5]:]
            found |= {dcid, rest[1:1 + rest[0]]}
    assert len(found) == 2, found
    assert not found & ids, "two processes made the same connection id"
    ids |= found
going.clear()
gevent.joinall(looking)
assert connection.get("/").status_code == 200
sink.close()
connection.close()
server.close()
"""
