"""The faults. Each begins a push, lets it meet its fault, and returns when all of that is over.

What it returns is whether the fault met a push that was under way.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.engine.stand_ins.faulty import Asked, Rule, Tokens
from tests.faults.checker import Checker
from tests.faults.world import (
    PASSWORD,
    USER,
    Made,
    Push,
    World,
    blobs_of,
    digest_of,
    log_of,
)


@dataclass(kw_only=True)
class Run:
    """One push and its fault; the images are in the engine, nothing of them in the registry."""

    world: World
    name: str
    orders: tuple[Made, ...]
    checker: Checker
    before: dict[str, str]
    """What each tag named before; what somebody else sets in between goes in here."""
    ends: dict[str, str] = field(default_factory=dict)
    """What moving tags must name in the end, where that is not what is pushed."""
    must_succeed: bool = False
    """Whether a push must get over the fault by itself."""
    code: int = 0
    pushes: list[Push] = field(default_factory=list)

    def begin(self, orders: tuple[Made, ...] = ()) -> Push:
        """Begin to push."""
        self.pushes.append(self.world.begin(self.name, orders or self.orders))
        return self.pushes[-1]

    def over(self) -> None:
        """Wait for every push."""
        for push in self.pushes:
            self.code = push.wait() or self.code


def imagegen_killed(run: Run) -> bool:
    """kill -9 of imagegen at some request; its engine goes on until it notices."""
    pushes: list[Push] = []
    rule = run.world.moment(lambda: pushes[0].kill9())
    pushes.append(run.begin())
    run.over()
    return rule.hits == 1


def engine_killed(run: Run) -> bool:
    """kill -9 of the engine and its containerd at some request, and their start."""
    engine = run.world.engine
    assert engine is not None
    rule = run.world.moment(engine.kill9)
    run.begin()
    run.over()
    if not engine.answers():
        engine.start()
    return rule.hits == 1


def registry_killed(run: Run) -> bool:
    """kill -9 of the registry at some request; it is back within seconds, or when all is over."""
    real, away = run.world.real, run.world.dice.choice([0.0, 0.5, 2.0, None])
    killed = threading.Event()

    def kill() -> None:
        real.kill9()
        killed.set()

    rule = run.world.moment(kill)
    push = run.begin()
    while not push.ended and not killed.wait(0.05):
        pass
    if away is not None:
        time.sleep(away)
    else:
        run.over()
    real.start()
    run.over()
    return rule.hits == 1


def disk_full(run: Run) -> bool:
    """No space left in the registry's storage from some byte on, for seconds or to the end."""
    world = run.world
    world.real.fill(world.dice.randrange(4_200_000))
    before = len(world.proxy.asked)
    push = run.begin()
    until = time.monotonic() + world.dice.uniform(0.5, 8)
    while time.monotonic() < until and not push.ended:
        time.sleep(0.05)
    world.real.free()
    run.over()
    return any(status >= 500 for _, _, status in world.proxy.asked[before:])


def two_at_once(run: Run) -> bool:
    """Two pushes of the same targets at once: the same images, or another build of each."""
    world = run.world
    world.rule(Rule(chance=0.3, delay=0.05))
    others = run.orders if world.dice.random() < 0.5 else world.pair()
    for one in others:
        run.checker.made[one.digest] = run.checker.made[run.orders[0].digest]
    run.begin()
    time.sleep(world.dice.uniform(0, 0.6))
    second = run.begin(others)
    met = False
    while not second.ended:
        met = met or all(push.running for push in run.pushes)
        time.sleep(0.01)
    run.over()
    return met


def blob_lost(run: Run) -> bool:
    """The registry says 201 and keeps nothing, or takes a blob or a manifest and then loses it."""
    world, lost = run.world, run.checker.lost
    names = "|".join(map(re.escape, run.checker.moving))

    def lose(asked: Asked) -> None:
        digest = digest_of(asked, run.name, world.real)
        lost.update({digest, asked.path.rpartition("/")[2]})
        world.real.lose(digest)

    def lose_later(asked: Asked) -> None:
        digest = world.dice.choice(blobs_of(asked, run.name, world.real))
        lost.add(digest)
        world.real.lose(digest)

    def swallowed(asked: Asked) -> None:
        lost.update({asked.digest, asked.path.rpartition("/")[2]})

    # What it loses of a moving tag's own write is lost to everybody: that is only swallowed.
    manifests = rf"/manifests/(?!({names}|sha256-.*)$)"
    nth, how = world.dice.randrange(14) + 1, world.dice.randrange(3)
    rule = world.rule(
        (
            Rule(method="PUT", path=f"digest=|{manifests}", nth=nth, times=1, after=lose),
            Rule(method="PUT", path=manifests, nth=nth % 8 + 1, times=1, after=lose_later),
            Rule(method="PUT", nth=nth, times=1, swallow=True, before=swallowed),
        )[how]
    )
    run.begin()
    run.over()
    return rule.hits == 1


def login_expires(run: Run) -> bool:
    """Tokens that live for a few requests, whatever the service says of their seconds."""
    tokens = Tokens(USER, PASSWORD, lives=run.world.dice.randrange(1, 20))
    run.world.proxy.tokens = tokens
    run.begin()
    run.over()
    return tokens.expired > 0


def clock_skew(run: Run) -> bool:
    """A registry whose clock is up to two days off: its dates, its tokens, its Retry-After."""
    world = run.world
    world.proxy.clock = world.dice.choice([-1, 1]) * world.dice.uniform(120, 172_800)
    world.proxy.tokens = Tokens(USER, PASSWORD, lives=1_000)
    rule = world.rule(
        Rule(chance=0.08, times=4, status=429, retry_after=world.dice.randrange(3), as_date=True)
    )
    run.must_succeed = True
    run.begin()
    run.over()
    return rule.hits > 0


def tag_changed(run: Run) -> bool:
    """Somebody else moves a tag between a read and the write: another build, or a newer image."""
    world, tag = run.world, "latest"
    old, same, newest = (world.make(target) for target in world.targets)
    first = world.begin(run.name, (replace(old, aliases=(tag,)), same, newest))
    if first.wait():
        raise RuntimeError(f"a push without a fault failed:\n{log_of(first)}")
    run.checker.made[same.digest] = run.checker.made[run.orders[-1].digest]
    # No request lies between the last look and the write: what comes there is seen by nobody, and
    # of a newer image that cannot be asked.
    newer = world.dice.random() < 0.5
    other, method = (newest, "HEAD|GET") if newer else (same, "HEAD|GET|PUT")

    def change(_: Asked) -> None:
        world.point(run.name, tag, other)
        run.before[tag] = other.digest
        if newer:
            run.ends[tag] = other.digest

    rule = world.rule(
        Rule(
            method=method,
            path=rf"/manifests/{tag}$",
            nth=world.dice.randrange(4) + 1,
            times=1,
            before=change,
        )
    )
    run.begin()
    run.over()
    return rule.hits == 1


def storm_of_429(run: Run) -> bool:
    """A registry that refuses a part of the requests: 429, with and without a Retry-After."""
    dice = run.world.dice
    rules = [
        run.world.rule(
            Rule(
                chance=dice.uniform(0.1, 0.6),
                times=dice.randrange(1, 15),
                status=429,
                retry_after=after,
                as_date=dated,
            )
        )
        for after, dated in ((None, False), (1.0, False), (1.0, True))
    ]
    run.begin()
    run.over()
    return any(rule.hits for rule in rules)


def wire(run: Run) -> bool:
    """Connections that are cut in a request or an answer, and statuses 500 and 503."""
    dice, world = run.world.dice, run.world
    times = iter([dice.randrange(1, 4) for _ in range(4)])
    rules = [
        world.rule(Rule(chance=0.1, times=next(times), cut_request=dice.randrange(300_000))),
        world.rule(Rule(chance=0.1, times=next(times), cut_response=dice.randrange(400))),
        world.rule(Rule(chance=0.1, times=next(times), status=500)),
        world.rule(Rule(chance=0.1, times=next(times), status=503)),
    ]
    run.begin()
    run.over()
    return any(rule.hits for rule in rules)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A fault by the name that ``--only`` takes; ``disk`` in bytes, 0 for no limit."""

    name: str
    fault: Callable[[Run], bool]
    own_engine: bool = False
    together: int = 5
    """Runs in one repository, each over what the one before left."""
    disk: int = 0

    @property
    def what(self) -> str:
        """In words."""
        return (self.fault.__doc__ or "").partition("\n")[0]


EVERY = (
    Scenario(name="imagegen-killed", fault=imagegen_killed),
    Scenario(name="engine-killed", fault=engine_killed, own_engine=True),
    Scenario(name="registry-killed", fault=registry_killed),
    Scenario(name="disk-full", fault=disk_full, disk=600_000_000),
    Scenario(name="two-at-once", fault=two_at_once),
    Scenario(name="blob-lost", fault=blob_lost),
    Scenario(name="login-expires", fault=login_expires),
    Scenario(name="clock-skew", fault=clock_skew),
    Scenario(name="tag-changed", fault=tag_changed, together=1),
    Scenario(name="storm-of-429", fault=storm_of_429),
    Scenario(name="wire", fault=wire),
)
