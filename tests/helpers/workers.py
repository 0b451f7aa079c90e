"""A peer: workers of one group behind one port, forked by a parent that owns the sockets and has no hub.

The parent obeys: for each line of JSON on its standard input it does something, and prints one line. So that
a test decides when a state changes, when it is told to the kernel, and who dies.
    {"do": "state", "slot", "state"}    by name
    {"do": "steer"}
    {"do": "kill", "slot"}              SIGKILL, and wait for it; the slot is DEAD then
    {"do": "reset", "slot"}             until all peers were told; how many resets
    {"do": "spawn", "slot"}             another worker in this slot
    {"do": "drain", "slot", "timeout"}  SIGTERM to the worker: it takes no more and ends; DRAINING before
    {"do": "wait", "slot"}              for its end: its exit status
    {"do": "info"}                      states, counters and connections of all slots, the register's counts

Handlers
    /worker        the slot that answers, and whether the request came early
    /slow/MS       the same, MS milliseconds later
    /hit/NAME      the same, and tells the parent that it ran

Options
    slots, accepting   how many there are, and how many have a worker from the start
    cert, key, retry, config
                       of the servers
    steer              attach the program at the start
    alone              nobody looks after the workers: each is a server with the group, as in a program's own
                       loop that forks. "state", "steer" and "reset" are not for these
    path               of the group's file, which each then opens for itself
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

import ready  # isort: skip - it makes what follows importable

import quicgreen
from quicgreen import _group, hub
from quicgreen._group import WorkerGroup
from quicgreen.configuration import ServerTls

VERSION = f"quicgreen/{quicgreen.__version__}"


class Parent:
    def __init__(self, options) -> None:
        self.options = options
        self.port = 0
        self.group = self.make_group()
        self.sockets = [self._bind(slot) for slot in range(options["slots"])]
        if options.get("alone"):
            for s in self.sockets:
                s.close()
        self.lives = {}
        self.ran = os.pipe()
        self.names = []

    def make_group(self):
        options = self.options
        return WorkerGroup(
            options.get("path"),
            slots=options["slots"],
            connections=options.get("connections", 64),
            early_data_capacity=1000,
            key_period_s=options.get("period_s", 3600),
        )

    def _bind(self, slot):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", self.options.get("port", 0) if slot == 0 else self.port))
        self.port = s.getsockname()[1]
        return s

    def spawn(self, slot):
        """Returns when it serves."""
        read_end, write_end = os.pipe()
        alone = self.options.get("alone")
        generation = 0 if alone else self.group.claim(slot)[1]
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self.work(slot, generation, write_end)
        os.close(write_end)
        self.lives[slot] = (pid, generation)
        assert os.read(read_end, 1) == b"+"
        os.close(read_end)
        return {"pid": pid}

    # ---------------------------------------------------------------- a worker

    def work(self, slot, generation, ready_fd):
        import gevent

        options = self.options
        if options.get("alone"):
            place = {
                "listener": ("127.0.0.1", self.port),
                "group": self.make_group() if "path" in options else self.group,
            }
        else:
            hub.join(self.group, slot, generation)
            place = {"listener": self.sockets[slot]}

        def handle(request) -> None:
            what, *arguments = request.path.strip("/").split("/")
            if what == "slow":
                gevent.sleep(int(arguments[0]) / 1000)
            if what == "hit":
                os.write(self.ran[1], f"{arguments[0]}\n".encode())
            fields = {"x-worker": str(slot), "x-early": str(request.early_data), "x-peer": VERSION}
            request.respond(200, fields, request.read())

        server = quicgreen.Server(
            handle=handle,
            **place,
            tls=ServerTls(certfile=options["cert"], keyfile=options["key"]),
            early_data=True,
            config=quicgreen.QuicConfiguration(**options.get("config", {})),
            retry=options.get("retry", "never"),
        )
        server.start()

        def end() -> None:
            server.stop(timeout=10)
            if not options.get("alone"):
                self.group.set_state(slot, generation, _group.FREE)
            os._exit(0)

        gevent.signal_handler(signal.SIGTERM, end)
        if not options.get("alone"):
            self.group.set_state(slot, generation, _group.ACCEPTING)
        os.write(ready_fd, b"+")
        server.serve_forever()

    # ---------------------------------------------------------------- commands

    def do_spawn(self, slot):
        return self.spawn(slot)

    def do_state(self, slot, state):
        return self.group.set_state(slot, self.group.worker(slot).generation, _group.STATES.index(state))

    def do_steer(self):
        return self.group.steer(self.sockets[0].fileno())

    def do_kill(self, slot):
        pid, generation = self.lives[slot]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return self.options.get("alone") or self.group.set_state(slot, generation, _group.DEAD)

    def do_reset(self, slot):
        total = 0
        while sent := self.group.reset(slot, self.sockets[slot].fileno()):
            total += sent
        return total

    def do_drain(self, slot):
        pid, generation = self.lives[slot]
        if not self.options.get("alone"):
            self.group.set_state(slot, generation, _group.DRAINING)
            if self.options.get("steer", True):
                self.do_steer()
        os.kill(pid, signal.SIGTERM)

    def do_wait(self, slot):
        return os.waitpid(self.lives[slot][0], 0)[1]

    def do_info(self):
        slots = range(self.options["slots"])
        os.set_blocking(self.ran[0], False)
        with contextlib.suppress(BlockingIOError):
            self.names += os.read(self.ran[0], 1 << 20).decode().split()
        return {
            "states": [_group.STATES[self.group.worker(slot).state] for slot in slots],
            "listed": [self.group.worker(slot).connections for slot in slots],
            "counters": [self.group.counters(slot) for slot in slots],
            "replay": self.group.replay().counts(),
            "ran": self.names,
        }


def main() -> None:
    options = ready.options()
    parent = Parent(options)
    for slot in range(options.get("accepting", options["slots"])):
        parent.spawn(slot)
    if options.get("steer", True) and not options.get("alone"):
        assert parent.do_steer() == 0
    ready.say(VERSION, "127.0.0.1", parent.port)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(parent, f"do_{command.pop('do')}")(**command)), flush=True)
    for pid, _ in parent.lives.values():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


main()
