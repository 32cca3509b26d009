"""The scenarios: what is done to the processes while people chat. What must hold afterwards is in `reconcile`.

A scenario says only what is particular to it; `play` settles, compares and cleans up. `SHORT` are those of the tests.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from tests.stress import calls
from tests.stress.reconcile import Violation
from tests.stress.stage import Server, Stage
from tests.stress.workload import Person
from tests.support.processes import REPOSITORY
from tests.support.replica_set import ReplicaSet

# Debian's and Ubuntu's package libfaketime.
LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
# How long a process is paused so that others take it for dead: six looks of the sweeper, two seconds apart, the time to
# the first of them and the second between two beats make 13 at most.
_LONGER_THAN_A_SWEEP = 15.0


async def _long_answers(stage: Stage, server: Server, people: list[Person]) -> None:
    """Let each person have an answer running that takes long, begun by `server`, with some of it stored."""
    stage.model.pieces, stage.model.pause = (60, 80), (0.2, 0.3)
    others = [one for one in stage.servers if one is not server and one.serves]
    for other in others:
        other.serves = False
    await asyncio.gather(*(person.post() for person in people))
    for other in others:
        other.serves = True
    await stage.until(lambda: stage.model.open >= len(people), "the model was not called")
    await asyncio.sleep(1.5)  # a beat and a half: what is done to them comes at any moment between two checkpoints


async def kill_in_mid_answer(stage: Stage) -> None:
    """A server is killed while it generates, and started again."""
    stage.orphans_allowed = True
    (server,) = await stage.serve()
    people = await stage.crowd(3 if stage.short else 6)
    await _long_answers(stage, server, people)
    await server.kill()
    stage.model.pieces, stage.model.pause = (4, 14), (0.0, 0.15)
    await server.restart()
    if not stage.short:
        await asyncio.gather(*(person.talk(3) for person in people))


async def kill_after_201(stage: Stage) -> None:
    """A server is killed as soon as it has acknowledged a message."""
    stage.orphans_allowed = True
    (server,) = await stage.serve()
    people = await stage.crowd(4)
    for person in people[: 1 if stage.short else 3]:
        await person.post()
        await server.kill()
        await server.restart()


async def one_of_two_is_killed(stage: Stage) -> None:
    """Two servers, of which one is killed under load and not started again."""
    stage.orphans_allowed = True
    first, _ = await stage.serve(2)
    stage.model.fault_share = 0.1
    people = await stage.crowd(6)
    async with stage.under_way(*(person.talk(5) for person in people)):
        await asyncio.sleep(stage.rng.uniform(1, 4))
        await first.kill()


async def one_of_two_is_paused(stage: Stage) -> None:
    """A server is stopped for so long that the other takes its answers for abandoned; then it goes on."""
    stage.orphans_allowed = True
    first, second = await stage.serve(2)
    people = await stage.crowd(4, tabs=1, restless=0.0)
    for person in people:  # who do not mind, and are there when it goes on
        stage.tab(person, patience=60)
    await _long_answers(stage, first, people)
    first.process.signal(signal.SIGSTOP)
    first.serves = False
    stage.model.pieces, stage.model.pause = (4, 14), (0.0, 0.15)
    await asyncio.sleep(_LONGER_THAN_A_SWEEP)
    first.process.signal(signal.SIGCONT)
    first.serves = True
    await asyncio.gather(*(person.talk(1) for person in people))
    assert second.serves


async def one_of_two_is_cut_off(stage: Stage) -> None:
    """A server cannot reach the database for so long that the other takes its answers for abandoned."""
    stage.orphans_allowed = True
    first, _ = await stage.serve(2)
    people = await stage.crowd(4)
    await _long_answers(stage, first, people)
    first.to_database.stall()
    stage.model.pieces, stage.model.pause = (4, 14), (0.0, 0.15)
    await asyncio.sleep(_LONGER_THAN_A_SWEEP)
    first.to_database.heal()
    await asyncio.gather(*(person.talk(1) for person in people))


async def database_killed(stage: Stage) -> None:
    """mongod is killed under load and started again."""
    await stage.serve(2)
    people = await stage.crowd(4)
    async with stage.under_way(*(person.talk(4) for person in people)):
        await asyncio.sleep(stage.rng.uniform(1, 3))
        await asyncio.to_thread(stage.mongo.nodes[0].kill)
        await asyncio.sleep(stage.rng.uniform(0.5, 3))
        stage.mongo.nodes[0].start()


async def database_paused(stage: Stage) -> None:
    """mongod says nothing for a while. No answer may be taken from a process that is alive."""
    await stage.serve(1 if stage.short else 2)
    people = await stage.crowd(3)
    async with stage.under_way(*(person.talk(2 if stage.short else 5) for person in people)):
        await asyncio.sleep(stage.rng.uniform(0.5, 2))
        stage.mongo.nodes[0].signal(signal.SIGSTOP)
        await asyncio.sleep(5 if stage.short else 20)
        stage.mongo.nodes[0].signal(signal.SIGCONT)


async def primary_lost(stage: Stage) -> None:
    """The primary of three nodes is killed under load; later it comes back."""
    await stage.serve(2)
    people = await stage.crowd(6)
    async with stage.under_way(*(person.talk(6) for person in people)):
        await asyncio.sleep(stage.rng.uniform(1, 3))
        primary = await asyncio.to_thread(stage.mongo.primary)
        await asyncio.to_thread(primary.kill)
        await asyncio.sleep(stage.rng.uniform(3, 6))
        primary.start()


async def model_faults(stage: Stage) -> None:
    """Half of the model's calls go wrong, in every way."""
    await stage.serve()
    stage.model.fault_share = 0.5
    people = await stage.crowd(4 if stage.short else 8)
    await asyncio.gather(*(person.talk(2 if stage.short else 6) for person in people))


async def network_faults(stage: Stage) -> None:
    """Connections are cut, stalled, half-closed, delayed and refused, on every way between the processes."""
    servers = await stage.serve(1 if stage.short else 2)
    stage.model.fault_share = 0.1
    people = await stage.crowd(4)
    proxies = [proxy for server in servers for proxy in server.proxies]

    async def disturb(times: int) -> None:
        for _ in range(times):
            proxy = stage.rng.choice(proxies)
            fault = stage.rng.choice((proxy.cut, proxy.stall, proxy.half_close, proxy.refuse, lambda: None))
            proxy.delay(stage.rng.choice((0.0, 0.01, 0.2)))
            fault()
            # Shorter than a sweep: these are faults that nobody may take for a death.
            await asyncio.sleep(stage.rng.uniform(0.2, 3))
            proxy.heal()
            await asyncio.sleep(stage.rng.uniform(0, 0.5))

    turns = 2 if stage.short else 8
    async with stage.under_way(disturb(4 if stage.short else 20), *(person.talk(turns) for person in people)):
        pass


async def mass_reconnect(stage: Stage) -> None:
    """All streams are cut in one moment, many in mid-answer, and come back with their cursors within a second."""
    (server,) = await stage.serve(CHATSTREAM_CONNECTION_TIMEOUT="300")
    stage.model.pieces, stage.model.pause = ((12, 16), (0.15, 0.25)) if stage.short else ((20, 30), (0.2, 0.4))
    people = await stage.crowd(20 if stage.short else 200, tabs=5, restless=0.0)
    tabs = list(stage.tabs)
    await stage.until(lambda: all(tab.connected.is_set() for tab in tabs), "not all are connected")
    talking = people[::5]  # of whom everybody's answers would keep this one process from playing the clients
    async with stage.under_way(*(person.post() for person in talking)):
        await stage.until(lambda: stage.model.open >= len(talking), "the model was not called")
        await asyncio.sleep(1.5)  # into the middle of the answers
        server.door.cut()
        await stage.until(lambda: not any(tab.connected.is_set() for tab in tabs), "not all are cut")
        begun = time.monotonic()
        await stage.until(lambda: all(tab.connected.is_set() for tab in tabs), "not all are back")
        assert time.monotonic() - begun < 30  # the machine's speed is nobody's fault; not to come back at all is
    await stage.settle()


async def told_to_end(stage: Stage) -> None:
    """SIGTERM with many streams, some in mid-answer: each is told to come back, and the process ends well."""
    (server,) = await stage.serve(CHATSTREAM_CONNECTION_TIMEOUT="300")
    people = await stage.crowd(10 if stage.short else 40, tabs=5, restless=0.0)
    tabs = list(stage.tabs)
    await stage.until(lambda: all(tab.connected.is_set() for tab in tabs), "not all are connected")
    stage.model.pieces, stage.model.pause = (10, 40), (0.1, 0.2)  # some end within the three seconds of the drain
    await asyncio.gather(*(person.post() for person in people[:5]))
    connections = [len(tab.last_words) for tab in tabs]
    retries = [len(tab.retries) for tab in tabs]
    server.serves = False
    server.process.signal(signal.SIGTERM)
    assert await server.process.ended() == 0, "SIGTERM"
    await stage.until(lambda: not any(tab.connected.is_set() for tab in tabs), "streams are left")
    for tab, last, told in zip(tabs, connections, retries, strict=True):
        assert tab.last_words[last - 1].get("error") == "server_shutdown", tab.last_words[last - 1]
        assert len(tab.retries) > told, "no retry:"
        assert min(tab.retries) >= 1000
    stage.model.pieces, stage.model.pause = (4, 8), (0.0, 0.1)
    await server.restart()


async def clock_stepped(stage: Stage) -> None:
    """The clock of one of two servers is set an hour forward, then two back, under load. Nothing may notice."""
    assert LIBFAKETIME.exists(), "needs the package libfaketime"
    with tempfile.TemporaryDirectory() as directory:
        clock = Path(directory, "clock")
        clock.write_text("+0\n")
        # Its clock_nanosleep refuses what Python's sleep asks for.
        Path(directory, "sitecustomize.py").write_text(
            "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
        )
        fake = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
        fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": f"{directory}:{REPOSITORY}"}
        await stage.serve(1)
        await stage.serve(1, **fake)
        people = await stage.crowd(4)
        async with stage.under_way(*(person.talk(6) for person in people)):
            for offset in ("+3600", "-3600", "+0"):
                await asyncio.sleep(stage.rng.uniform(2, 5))
                next_clock = Path(directory, "next")
                next_clock.write_text(f"{offset}\n")
                next_clock.rename(clock)  # never half of it
        await stage.settle()


async def races(stage: Stage) -> None:
    """Stop and deletion, each twice at once; a double click; two tabs that say something at once; with two servers."""
    await stage.serve(1 if stage.short else 2)
    stage.model.pause = (0.05, 0.2)
    people = await stage.crowd(6)
    for _ in range(1 if stage.short else 4):
        await asyncio.gather(*map(_race, people))
    doomed = people[:2]
    await asyncio.gather(*(person.post(if_busy="queue") for person in doomed))
    for person in doomed:
        actions = (person.delete(), person.delete(), person.stop(), person.stop(), person.post(if_busy="queue"))
        first, second, *_ = await asyncio.gather(*actions)
        assert sorted((first, second)) == [204, 404]
    await stage.until(lambda: all(tab.over for tab in stage.tabs[:4]), "a deleted conversation is watched")


async def _race(person: Person) -> None:
    """One person, in a hurry."""
    content = person.text()
    await asyncio.gather(*(person.post(content, "key-of-a-double-click-" + content.split()[0][4:]) for _ in range(2)))
    await asyncio.gather(person.post(), person.post(if_busy="queue"))
    await asyncio.gather(person.post(if_busy="interrupt"), person.post(if_busy="interrupt"))
    await asyncio.gather(person.stop(), person.stop(), person.regenerate())
    await asyncio.gather(person.regenerate("interrupt"), person.regenerate("interrupt"), person.stop())


async def killed_while_tools_work(stage: Stage) -> None:
    """A server is killed at each step of the lives of calls: what may happen once never happens twice, and is not told
    as done where that is not known; what may be repeated ends done, under one key."""
    if wrong := await calls.killed_at_each_step(stage):
        raise AssertionError("; ".join(wrong))


class Scenario(Struct, frozen=True):
    """What to do, on how many nodes of a database, and how many seconds it may take, its recovery included."""

    act: Callable[[Stage], Awaitable[None]]
    limit: float = 180
    nodes: int = 1


SCENARIOS = {
    scenario.act.__name__: scenario
    for scenario in (
        Scenario(kill_in_mid_answer),
        Scenario(kill_after_201),
        Scenario(one_of_two_is_killed),
        Scenario(one_of_two_is_paused),
        Scenario(one_of_two_is_cut_off),
        Scenario(database_killed),
        Scenario(database_paused),
        Scenario(primary_lost, nodes=3),
        Scenario(model_faults),
        Scenario(network_faults, limit=300),
        Scenario(mass_reconnect),
        Scenario(told_to_end),
        Scenario(clock_stepped),
        Scenario(races),
        Scenario(killed_while_tools_work),
    )
}
# One of each kind of fault; together they take less than a minute.
SHORT = (
    "kill_in_mid_answer",
    "database_paused",
    "network_faults",
    "mass_reconnect",
    "told_to_end",
    "races",
    "killed_while_tools_work",
)


async def play(name: str, seed: int, directory: Path, mongo: ReplicaSet, *, short: bool = False) -> list[Violation]:
    """Play a scenario; returns the rules that are broken. `directory`, which is new, keeps the logs and the ledger."""
    scenario = SCENARIOS[name]
    directory.mkdir(parents=True)
    async with Stage(seed, directory, mongo, short=short) as stage:
        try:
            async with asyncio.timeout(scenario.limit):
                await scenario.act(stage)
                await stage.settle()
        except TimeoutError:
            return [Violation("it_ends", f"it is not over after {scenario.limit:.0f} s")]
        except AssertionError as exc:
            return [Violation(name, str(exc) or repr(exc))]
        except ExceptionGroup as exc:  # of those that were under way
            failed, other = exc.split(AssertionError)
            if failed is None or other is not None:
                raise
            return [Violation(name, str(one) or repr(one)) for one in failed.exceptions]
        return await stage.verdict()
