"""A request's greenlet beside a plain `gevent.Greenlet`: what is done to both must have the same outcome."""

from __future__ import annotations

import contextvars
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import gevent.local
import gevent.util
import pytest
from gevent import Greenlet, GreenletExit
from gevent.event import Event
from gevent.pool import Group
from greenlet import getcurrent, greenlet
from support import PATIENCE_S, OnPurposeError, connect, reported, serving, turn_loop, wait_until

import quicgreen
from quicgreen.greenlets import RequestGreenlet

ARGUMENT = "argument"


def start_plain(task: Callable[[Any], Any]) -> Greenlet:
    g = Greenlet(task, ARGUMENT)
    g.start()
    gevent.sleep(0)
    return g


def start_ours(task: Callable[[Any], Any]) -> Greenlet:
    """As a server does: in the hub's greenlet, switched to at once."""
    made: list[RequestGreenlet] = []

    def make() -> None:
        made.append(RequestGreenlet(task, ARGUMENT))
        made[0].switch()

    gevent.get_hub().loop.run_callback(make)
    assert wait_until(lambda: made)
    return made[0]


# ---------------------------------------------------------------- tasks


def at_once(argument: Any) -> Any:
    return argument.upper()


def fails(argument: Any) -> Any:
    raise OnPurposeError("failed")


def waits(argument: Any) -> Any:
    gevent.sleep(600)
    return argument


def soon(argument: Any) -> Any:
    gevent.sleep(0.005)
    return argument.upper()


def fails_soon(argument: Any) -> Any:
    gevent.sleep(0.005)
    raise OnPurposeError("failed")


def resists(argument: Any) -> Any:
    """Lives on after the first attempt."""
    try:
        gevent.sleep(600)
    except BaseException as e:
        caught = e
    gevent.sleep(0.03)
    return type(caught).__name__


def cleans_up_badly(argument: Any) -> Any:
    try:
        gevent.sleep(600)
    finally:
        raise OnPurposeError("while it was killed")


# ---------------------------------------------------------------- outcomes

Start = Callable[[Callable[[Any], Any]], Greenlet]


def state(g: Greenlet) -> dict[str, Any]:
    """All that can be asked."""
    error = g.exc_info
    return {
        "ready": bool(g.ready()),
        "successful": bool(g.successful()),
        "started": bool(g.started),
        "bool": bool(g),
        "dead": bool(g.dead),
        "value": repr(g.value),
        "exception": repr(g.exception),
        "exc_info": error and (error[0], repr(error[1]), error[2] is not None),
        "kwargs": g.kwargs,
        "has_links": g.has_links(),
    }


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str]:
    try:
        return "returned", repr(function(*arguments, **options))
    except BaseException as e:
        return "raised", type(e).__name__ if isinstance(e, gevent.Timeout) else repr(e)


def states_of(task: Callable[[Any], Any]) -> Callable[[Start], Any]:
    def scenario(start: Start) -> Any:
        g = start(task)
        before = state(g)
        g.join(0.1)
        after = state(g)
        g.kill()
        return before, after, state(g)

    return scenario


def killed_by(task: Callable[[Any], Any], *arguments: Any, **options: Any) -> Callable[[Start], Any]:
    def scenario(start: Start) -> Any:
        g = start(task)
        outcome = attempt(g.kill, *arguments, **options)
        at_first = state(g)
        g.join(PATIENCE_S)
        return outcome, at_first, state(g), attempt(g.get)

    return scenario


def kill_twice(start: Start) -> Any:
    g = start(waits)
    g.kill(block=False)
    g.kill(OnPurposeError("too late"))
    return state(g)


def kill_finished(start: Start) -> Any:
    g = start(at_once)
    g.join()
    return attempt(g.kill), attempt(g.kill, OnPurposeError), state(g)


def kill_oneself(start: Start) -> Any:
    log = []

    def task(argument: Any) -> Any:
        try:
            getcurrent().kill()
        except GreenletExit:
            log.append("exit")
            raise

    g = start(task)
    g.join(PATIENCE_S)
    return log, state(g)


def killed_at_a_wait_with_cleanup(start: Start) -> Any:
    log: list[str] = []

    def task(argument: Any) -> Any:
        try:
            gevent.sleep(600)
        except GreenletExit:
            gevent.sleep(0.005)
            log.append("cleaned up")
            raise

    g = start(task)
    g.kill()
    return log, state(g)


def throw_from_the_hub(start: Start) -> Any:
    g = start(waits)
    gevent.get_hub().loop.run_callback(g.throw, OnPurposeError("thrown"))
    g.join(PATIENCE_S)
    return state(g)


def throw_at_finished(start: Start) -> Any:
    g = start(at_once)
    g.join()
    return attempt(g.throw, OnPurposeError("late")), state(g)


def get_with(task: Callable[[Any], Any], **options: Any) -> Callable[[Start], Any]:
    def scenario(start: Start) -> Any:
        g = start(task)
        outcome = attempt(g.get, **options)
        links = g.has_links()
        g.kill()
        return outcome, links

    return scenario


def get_twice(start: Start) -> Any:
    g = start(fails_soon)
    return attempt(g.get), attempt(g.get), attempt(g.get, block=False)


def get_raises_the_very_exception(start: Start) -> Any:
    e = OnPurposeError("this one")

    def task(argument: Any) -> Any:
        gevent.sleep(0)
        raise e

    g = start(task)
    try:
        g.get()
    except OnPurposeError as found:
        frames = []
        tb = found.__traceback__
        while tb is not None:
            frames.append(tb.tb_frame.f_code.co_name)
            tb = tb.tb_next
        return found is e, g.exception is e, "task" in frames
    return None


def join_with(task: Callable[[Any], Any], *arguments: Any) -> Callable[[Start], Any]:
    def scenario(start: Start) -> Any:
        g = start(task)
        outcome = attempt(g.join, *arguments)
        found = state(g)
        g.kill()
        return outcome, found

    return scenario


def join_interrupted(method: str) -> Callable[[Start], Any]:
    """Whoever waits can be killed, or have a deadline of its own; no link stays behind."""

    def scenario(start: Start) -> Any:
        g = start(waits)
        waiter = gevent.spawn(getattr(g, method))
        gevent.sleep(0)
        linked = g.has_links()
        waiter.kill()
        unlinked = g.has_links()
        with gevent.Timeout(0.005, False):
            getattr(g, method)()
        found = linked, unlinked, g.has_links()
        g.kill()
        return found

    return scenario


def many_wait(start: Start) -> Any:
    g = start(soon)
    waiters = [gevent.spawn(g.get) for _ in range(5)] + [gevent.spawn(g.join) for _ in range(5)]
    gevent.joinall(waiters, timeout=PATIENCE_S)
    return [w.value for w in waiters]


def get_of_oneself(start: Start) -> Any:
    g = start(lambda argument: attempt(getcurrent().get, timeout=0.005))
    return attempt(g.get, timeout=PATIENCE_S)


def links_of(task: Callable[[Any], Any], end: Callable[[Greenlet], Any]) -> Callable[[Start], Any]:
    """Which kinds of links are told, in which greenlet, in which order."""

    def scenario(start: Start) -> Any:
        log: list[Any] = []
        g = start(task)

        def note(kind: str) -> Callable[[Any], None]:
            def call(source: Any) -> None:
                own = getcurrent()
                log.append(
                    (kind, source is g, own is gevent.get_hub(), type(own) is greenlet, bool(g.ready()))
                )

            return call

        g.rawlink(note("raw"))
        g.link(note("link"))
        g.link_value(note("value"))
        g.link_exception(note("exception"))
        g.rawlink(note("raw again"))
        counted = g.has_links()
        end(g)
        turn_loop(4)
        return counted, log, g.has_links()

    return scenario


def let_end(g: Greenlet) -> None:
    g.join(PATIENCE_S)


def links_change_while_told(start: Start) -> Any:
    log: list[str] = []
    g = start(soon)

    def later(source: Any) -> None:
        log.append("later")

    def never(source: Any) -> None:
        log.append("never")

    def first(source: Any) -> None:
        log.append("first")
        source.unlink(never)
        source.rawlink(later)

    g.rawlink(first)
    g.rawlink(never)
    g.join(PATIENCE_S)
    turn_loop()
    return log, g.has_links()


def unlinking(start: Start) -> Any:
    log: list[str] = []
    g = start(soon)
    a, b = (lambda s: log.append("a")), (lambda s: log.append("b"))
    g.rawlink(a)
    g.link(a)
    g.rawlink(b)
    g.unlink(a)
    counted = [g.has_links()]
    g.unlink(a)  # finds the other kind of link, which is equal to what it calls
    counted.append(g.has_links())
    g.unlink(print)
    counted.append(g.has_links())
    g.unlink_all()
    counted.append(g.has_links())
    g.rawlink(b)
    g.join(PATIENCE_S)
    turn_loop()
    return counted, log


def a_link_that_raises(start: Start) -> Any:
    log: list[str] = []

    def bad(source: Any) -> None:
        raise OnPurposeError("in a link")

    with reported() as found:
        g = start(soon)
        g.rawlink(bad)
        g.rawlink(lambda source: log.append("told"))
        g.join(PATIENCE_S)
        turn_loop()
        contexts = [(type(c).__name__, c[0] is bad, c[1] is g) for c, _ in found]
    return log, contexts, [repr(e) for _, e in found]


def link_nonsense(start: Start) -> Any:
    g = start(waits)
    outcomes = [attempt(g.rawlink, 5)[0], attempt(g.link, None)[0], g.has_links()]
    g.kill()
    return outcomes


def an_error_is_reported_once(start: Start) -> Any:
    with reported() as found:
        g = start(fails_soon)
        attempt(g.get)
        turn_loop()
        return [(context is g, repr(e)) for context, e in found]


def an_exit_is_not_reported(start: Start) -> Any:
    with reported() as found:
        start(waits).kill()
        start(lambda argument: sys.exit).join()
        turn_loop()
        return found


def all_killed(block: bool) -> Callable[[Start], Any]:
    def scenario(start: Start) -> Any:
        mixed = [start(waits), gevent.spawn(waits, 1), start(waits), start(at_once)]
        gevent.sleep(0)
        outcome = attempt(gevent.killall, mixed, block=block)
        gevent.joinall(mixed, timeout=PATIENCE_S)
        return outcome, [state(g) for g in mixed]

    return scenario


def all_killed_in_vain(start: Start) -> Any:
    g = start(resists)
    outcome = attempt(gevent.killall, [g], timeout=0.005)
    g.join(PATIENCE_S)
    return outcome, state(g)


def all_killed_with(start: Start) -> Any:
    g = start(waits)
    gevent.killall([g], OnPurposeError("all of you"))
    return state(g)


def joined_together(start: Start) -> Any:
    a, b, c = start(soon), start(fails_soon), start(waits)
    done = gevent.joinall([a, b, c], count=2, timeout=PATIENCE_S)
    outcomes = [sorted(repr(g.exception) for g in done)]
    outcomes.append(attempt(gevent.joinall, [b], raise_error=True))
    outcomes.append(repr(gevent.joinall([c], timeout=0.005)))
    c.kill()
    return outcomes, [g.has_links() for g in (a, b, c)]


def waited_for(start: Start) -> Any:
    a, b = start(soon), start(waits)
    first = [g is a for g in gevent.wait([a, b], count=1, timeout=PATIENCE_S)]
    inside = [g is a for g in gevent.iwait([a, b], timeout=0.005)]
    b.kill()
    return first, inside


def in_a_group(start: Start) -> Any:
    group = Group()
    mine = [start(waits), start(soon)]
    for g in mine:
        group.add(g)
    sizes = [len(group)]
    mine[1].join(PATIENCE_S)
    turn_loop()
    sizes.append(len(group))
    group.kill(timeout=PATIENCE_S)
    turn_loop()
    sizes.append(len(group))
    return sizes, [state(g) for g in mine]


def as_a_context(start: Start) -> Any:
    with start(soon) as g:
        pass
    with pytest.raises(OnPurposeError), start(waits) as other:
        raise OnPurposeError("in the block")
    return state(g), state(other)


def started_again(start: Start) -> Any:
    count: list[int] = []

    def task(argument: Any) -> Any:
        count.append(1)
        gevent.sleep(0.005)

    g = start(task)
    g.start()
    g.start_later(0)
    g.join(PATIENCE_S)
    attempt(g.start)
    turn_loop()
    return len(count)


def names(start: Start) -> Any:
    g = start(waits)
    unnamed = '"' in repr(g)
    ident = g.minimal_ident
    default = g.name == f"Greenlet-{ident}"
    g.name = "Tom"
    found = unnamed, type(ident), default, g.name, '"Tom"' in repr(g), '"Tom"' in str(g)
    g.kill()
    return found


def told_by_repr(start: Start) -> Any:
    """After the class's name and the address: the task and what it was called with."""
    g = start(waits)
    tail = repr(g).partition(": ")[2]
    given = g.args
    g.kill()
    return tail, given, g.args


def attributes(start: Start) -> Any:
    g = start(waits)
    g.colour = "blue"
    hub = gevent.get_hub()
    found = g.colour, g.loop is hub.loop, g.parent is hub, isinstance(g, Greenlet), weakref.ref(g)() is g
    g.kill()
    return found, {g: 1}[g]


def printed_as_a_tree(start: Start) -> Any:
    g = start(waits)
    text = "\n".join(gevent.util.format_run_info())
    g.kill()
    return hex(id(g)) in text, "in waits" in text


def own_locals(start: Start) -> Any:
    local = gevent.local.local()
    local.x = "main"
    seen = []

    def task(argument: Any) -> Any:
        seen.append(getattr(local, "x", None))
        local.x = argument
        gevent.sleep(0.005)
        seen.append(local.x)

    for _ in range(2):
        start(task).join(PATIENCE_S)
    return seen, local.x


def locals_end_with_it(start: Start) -> Any:
    class Thing:
        pass

    local = gevent.local.local()
    found = []

    def task(argument: Any) -> Any:
        local.thing = Thing()
        found.append(weakref.ref(local.thing))
        gevent.sleep(0.005)

    g = start(task)
    alive = found[0]() is not None
    g.join(PATIENCE_S)
    turn_loop()
    return alive, found[0]() is None  # though the greenlet is still here


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("_variable", default="nothing")


def own_context(start: Start) -> Any:
    seen = []

    def task(argument: Any) -> Any:
        seen.append(_variable.get())
        _variable.set(argument)
        gevent.sleep(0.005)
        seen.append(_variable.get())

    start(task).join(PATIENCE_S)
    start(task).join(PATIENCE_S)
    return seen, _variable.get()


def forgotten(task: Callable[[Any], Any]) -> Callable[[Start], Any]:
    """Without the collector's help nothing is left of it."""

    def scenario(start: Start) -> Any:
        class Thing:
            pass

        thing = Thing()
        found = [weakref.ref(thing)]

        def holding(argument: Any, thing: Any = thing) -> Any:
            return task(argument)

        del thing
        gc.collect()
        gc.disable()
        try:
            g = start(holding)
            found.append(weakref.ref(g))
            g.join(0.02)
            g.kill()
            del holding, g
            turn_loop()
            return [ref() is None for ref in found]
        finally:
            gc.enable()

    return scenario


SCENARIOS: dict[str, Callable[[Start], Any]] = {
    **{f"states {t.__name__}": states_of(t) for t in (at_once, fails, waits, soon, fails_soon, resists)},
    "kill": killed_by(waits),
    "kill, not waiting": killed_by(waits, block=False),
    "kill with a class": killed_by(waits, OnPurposeError),
    "kill with an instance": killed_by(waits, OnPurposeError("you")),
    "kill with an exit's instance": killed_by(waits, GreenletExit("because")),
    "kill with exc_info": killed_by(waits, (OnPurposeError, OnPurposeError("three"), None)),
    "kill what resists": killed_by(resists),
    "kill what resists, for a while": killed_by(resists, timeout=0.005),
    "kill what cleans up badly": killed_by(cleans_up_badly),
    "kill with SystemExit": killed_by(waits, ValueError, timeout=0),
    "kill twice": kill_twice,
    "kill finished": kill_finished,
    "kill oneself": kill_oneself,
    "kill with cleanup": killed_at_a_wait_with_cleanup,
    "throw": throw_from_the_hub,
    "throw at finished": throw_at_finished,
    "get": get_with(soon),
    "get at once": get_with(at_once),
    "get a failure": get_with(fails),
    "get a failure soon": get_with(fails_soon),
    "get in time": get_with(soon, timeout=PATIENCE_S),
    "get not in time": get_with(waits, timeout=0.005),
    "get in no time": get_with(waits, timeout=0),
    "get, not waiting": get_with(waits, block=False),
    "get finished, not waiting": get_with(at_once, block=False),
    "get twice": get_twice,
    "get the very exception": get_raises_the_very_exception,
    "get of oneself": get_of_oneself,
    "join": join_with(soon),
    "join a failure": join_with(fails_soon),
    "join finished": join_with(at_once),
    "join not in time": join_with(waits, 0.005),
    "join in no time": join_with(waits, 0),
    "join interrupted": join_interrupted("join"),
    "get interrupted": join_interrupted("get"),
    "many wait": many_wait,
    "links": links_of(soon, let_end),
    "links of a failure": links_of(fails_soon, let_end),
    "links of what was killed": links_of(waits, Greenlet.kill),
    "links of what was thrown at": links_of(waits, lambda g: g.kill(OnPurposeError)),
    "links of finished": links_of(at_once, let_end),
    "links of failed": links_of(fails, let_end),
    "links change": links_change_while_told,
    "unlink": unlinking,
    "a link that raises": a_link_that_raises,
    "link nonsense": link_nonsense,
    "errors are reported": an_error_is_reported_once,
    "exits are not": an_exit_is_not_reported,
    "killall": all_killed(True),
    "killall, not waiting": all_killed(False),
    "killall in vain": all_killed_in_vain,
    "killall with": all_killed_with,
    "joinall": joined_together,
    "wait": waited_for,
    "group": in_a_group,
    "with": as_a_context,
    "start again": started_again,
    "names": names,
    "repr": told_by_repr,
    "attributes": attributes,
    "tree": printed_as_a_tree,
    "locals": own_locals,
    "locals end": locals_end_with_it,
    "context": own_context,
    "forgotten": forgotten(soon),
    "forgotten after a failure": forgotten(fails_soon),
    "forgotten after being killed": forgotten(waits),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_behaves_as_a_gevent_greenlet(name: str) -> None:
    scenario = SCENARIOS[name]
    with gevent.Timeout(30):
        if name.startswith("errors") or name.startswith("exits") or "link that raises" in name:
            plain, ours = scenario(start_plain), scenario(start_ours)
        else:
            with reported():
                plain, ours = scenario(start_plain), scenario(start_ours)
    assert ours == plain


def test_the_scenarios_can_tell_greenlets_apart() -> None:
    """Or else the tests above could not fail."""
    with reported():
        outcomes = {name: repr(SCENARIOS[name](start_plain)) for name in SCENARIOS if name.startswith("kill")}
    assert len(set(outcomes.values())) > 8
    assert "OnPurposeError('you')" in outcomes["kill with an instance"]


def test_all_public_names_are_covered() -> None:
    """What gevent adds to its greenlets must not be inherited by chance: the base class was not set up."""
    plain, ours = start_plain(waits), start_ours(waits)
    try:
        for name in dir(Greenlet):
            if name.startswith("_") or name in ("run", "switch", "throw"):
                continue
            expected = attempt(getattr, plain, name)
            found = attempt(getattr, ours, name)
            assert found[0] == expected[0], (name, found)
    finally:
        gevent.killall([plain, ours])


# ---------------------------------------------------------------- in a server


def test_a_request_runs_in_one_of_its_own() -> None:
    seen: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(getcurrent())
        gevent.sleep(0)
        assert getcurrent() is seen[-1]
        request.respond(200)

    with serving(handle) as server, connect(server) as connection:
        for _ in range(3):
            connection.get()
    assert len({id(g) for g in seen}) == 3
    assert all(isinstance(g, RequestGreenlet) and isinstance(g, Greenlet) for g in seen)
    assert all(g.parent is gevent.get_hub() for g in seen)


def test_locals_and_context_do_not_cross_requests() -> None:
    local = gevent.local.local()

    def handle(request: quicgreen.Request) -> None:
        seen = [str(getattr(local, "path", None)), _variable.get()]
        local.path = request.path
        _variable.set(request.path)
        gevent.sleep(0.001)
        seen += [local.path, _variable.get()]
        request.respond(200, None, " ".join(seen))

    with serving(handle) as server, connect(server) as connection:
        paths = [f"/{i}" for i in range(20)]
        requests = [gevent.spawn(connection.get, path) for path in paths]
        answers = [r.get(timeout=PATIENCE_S).text for r in requests]
        answers.append(connection.get("/last").text)
    assert answers == [f"None nothing {p} {p}" for p in [*paths, "/last"]]
    assert _variable.get() == "nothing"


def test_a_forgotten_timeout_hits_nobody() -> None:
    def handle(request: quicgreen.Request) -> None:
        if request.path == "/forget":
            gevent.Timeout(0.02).start()
        else:
            gevent.sleep(0.06)
        request.respond(200, None, b"unharmed")

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        for _ in range(3):
            connection.get("/forget")
            assert connection.get("/next").text == "unharmed"
        assert errors == []


def test_a_late_kill_hits_nobody() -> None:
    seen: list[Greenlet] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(getcurrent())
        if request.path == "/next":
            gevent.sleep(0.02)
        request.respond(200, None, b"unharmed")

    with serving(handle) as server, connect(server) as connection:
        connection.get("/first")
        following = gevent.spawn(connection.get, "/next")
        assert wait_until(lambda: len(seen) == 2)
        seen[0].kill()
        seen[0].kill(block=False)
        gevent.killall([seen[0]])
        assert following.get(timeout=PATIENCE_S).text == "unharmed"


def test_a_kill_in_the_turn_in_which_it_ends_is_too_late() -> None:
    go = Event()
    seen: list[Greenlet] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(getcurrent())
        go.wait()
        request.respond(200, None, b"done")

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        request = gevent.spawn(connection.get)
        assert wait_until(lambda: seen)
        go.set()
        seen[0].kill(block=False)
        assert request.get(timeout=PATIENCE_S).text == "done"
        assert (seen[0].successful(), seen[0].value) == (True, None)
        assert errors == []


@pytest.mark.parametrize("path", ["/answers", "/waits", "/raises", "/killed"])
def test_nothing_is_left_of_a_request(path: str) -> None:
    """Without the collector's help: no cycles."""
    left: list[weakref.ref[Any]] = []

    def handle(request: quicgreen.Request) -> None:
        left.append(weakref.ref(getcurrent()))
        left.append(weakref.ref(request))
        request.headers.get("x")
        if path == "/raises":
            gevent.sleep(0)
            raise OnPurposeError
        if path == "/killed":
            gevent.sleep(600)
        if path == "/waits":
            gevent.sleep(0.001)
        request.respond(200)

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        gc.collect()
        gc.disable()
        try:
            response = gevent.spawn(connection.get, path)
            if path == "/killed":
                assert wait_until(lambda: left)
                left[0]().kill()
            response.join(PATIENCE_S)
            errors.clear()
            assert wait_until(lambda: all(ref() is None for ref in left), 1), [
                gc.get_referrers(ref()) for ref in left if ref() is not None
            ]
            assert len(left) == 2
        finally:
            gc.enable()


def test_a_greenlet_that_is_asked_for_its_handlers_failure_tells_it() -> None:
    seen: list[Greenlet] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(getcurrent())
        raise OnPurposeError("in the handler")

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        assert connection.get().status_code == 500
        with pytest.raises(OnPurposeError, match="in the handler"):
            seen[0].get()
        assert [(context is seen[0], repr(e)) for context, e in errors] == [(True, repr(seen[0].exception))]
