"""Arms take turns, round by round in a random order, and what comes of it."""

from __future__ import annotations

import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from peers import shapes
from timing.sides import Refused, Side

REGIMES = ("clipped", "kept")
# Repetitions of a turn, at least and at most.
FEWEST, MOST = 3, 200
# Rounds at most where each turn loads the set anew.
FEW_ROUNDS = 3


@dataclass
class Pace:
    """How long to measure."""

    rounds: int
    # Seconds that a turn should take.
    turn: float
    # Seconds before it. Thread pools spin for a while after their work, and the next one's must not share the
    # processors with them.
    pause: float
    # After that moment of the monotonic clock no further round begins.
    end: float = float("inf")


@dataclass
class Series:
    """One arm in one regime: of each quantity the median of every round's turn."""

    arm: str
    side: Side
    regime: str
    error: float
    repetitions: int = 0
    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, turn: dict[str, list[float]]) -> None:
        for column, values in turn.items():
            self.columns.setdefault(column, []).append(statistics.median(values))


@dataclass
class Result:
    """What one set gave."""

    name: str
    tensors: int
    elements: int
    series: list[Series]
    # GB/s, of each kind a value a round.
    bandwidth: dict[str, list[float]] = field(default_factory=dict)
    together: bool = True
    # Bytes of an element.
    each: int = 4

    def rate(self, kind: str) -> float | None:
        return statistics.median(self.bandwidth[kind]) if kind in self.bandwidth else None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load(side: Side, sizes: list[int], result: Result) -> dict[str, Any]:
    """Has a side take a set; it checks its own answers. Older ones know no types."""
    return side.ask(f"set {shapes.coded(sizes)}" + (" bf16" if result.each == 2 else ""))


def fits(sides: list[Side], elements: int) -> bool:
    """Whether the sides on the CPU can hold the set, and what it is restored from, at once. Those on GPUs say
    so themselves, whereas the system would end one of several processes."""
    on_cpu = sum(on_the_cpu(side) for side in sides)
    return on_cpu * 8 * elements < 0.8 * available()


def on_the_cpu(side: Side) -> bool:
    return bool(side.hello.get("device") == "cpu")


def available() -> float:
    """Bytes of free memory."""
    try:
        with open("/proc/meminfo") as file:
            words = next(line.split() for line in file if line.startswith("MemAvailable"))
        return float(words[1]) * 1024
    except (OSError, StopIteration):
        return float("inf")


def same_values(answers: list[dict[str, Any]]) -> None:
    norms = [answer["reference"] for answer in answers]
    if max(norms) > min(norms) * (1 + 1e-9):
        raise Refused(f"the sides made different gradients: norms {norms}")


def turn(series: Series, name: str, pace: Pace) -> dict[str, list[float]]:
    time.sleep(pace.pause)
    return series.side.ask(f"time {name} {series.regime} {series.repetitions}")


def probe(series: Series, name: str, pace: Pace) -> None:
    """How often to repeat."""
    once = series.side.ask(f"time {name} {series.regime} 1")["seconds"][0]
    series.repetitions = max(FEWEST, min(MOST, int(pace.turn / max(once, 1e-9))))


def series_of(side: Side, answer: dict[str, Any]) -> list[tuple[Series, str]]:
    return [
        (Series(side.name(arm), side, regime, answer["arms"][arm]["error"]), arm)
        for regime in REGIMES
        for arm in side.arms()
    ]


def together(sides: list[Side], sizes: list[int], pace: Pace, result: Result) -> None:
    """Every side holds the set all the while."""
    answers = [load(side, sizes, result) for side in sides]
    same_values(answers)
    arms = [own for side, answer in zip(sides, answers) for own in series_of(side, answer)]
    result.series = [series for series, _ in arms]
    for series, name in arms:
        probe(series, name, pace)
    for number in range(pace.rounds):
        if number and time.monotonic() > pace.end:
            say(f"{result.name}: {number} rounds, for the time is over")
            break
        measure_bandwidth(sides[0], result, pace)
        order = random.Random(number).sample(arms, len(arms))
        for series, name in order:
            series.add(turn(series, name, pace))
    for side in sides:
        side.ask("drop")


def one_at_a_time(sides: list[Side], sizes: list[int], pace: Pace, result: Result) -> None:
    """A side takes the set for its turns alone. One that cannot is left out."""
    result.together = False
    known: dict[str, list[tuple[Series, str]]] = {}
    left = list(sides)
    for number in range(min(pace.rounds, FEW_ROUNDS)):
        if number and time.monotonic() > pace.end:
            break
        for side in random.Random(number).sample(left, len(left)):
            try:
                answer = load(side, sizes, result)
                if side.label not in known:
                    known[side.label] = series_of(side, answer)
                    for series, name in known[side.label]:
                        probe(series, name, pace)
                if side is sides[0]:
                    measure_bandwidth(side, result, pace)
                for series, name in known[side.label]:
                    series.add(turn(series, name, pace))
                side.ask("drop")
            except Refused as refusal:
                say(f"{result.name}: left out: {refusal}")
                known.pop(side.label, None)
                left.remove(side)
    result.series = [series for side in sides for series, _ in known.get(side.label, [])]


def measure_bandwidth(side: Side, result: Result, pace: Pace) -> None:
    time.sleep(pace.pause)
    for kind, rate in side.ask("bandwidth").items():
        result.bandwidth.setdefault(kind, []).append(rate)


def measure(sides: list[Side], name: str, pace: Pace) -> Result:
    """Raises `Refused` where arms disagree about the gradients or die. Out of memory, they go one at a time."""
    plain, dtype = shapes.typed(name)
    sizes = shapes.sizes(plain)
    result = Result(name, len(sizes), sum(sizes), [], each=2 if dtype == "bf16" else 4)
    say(f"{name}: {result.tensors} tensors, {result.elements:,} elements")
    if not fits(sides, result.elements):
        say(f"{name}: too large for all sides at once, one at a time")
    else:
        try:
            together(sides, sizes, pace, result)
            return result
        except Refused as refusal:
            for side in sides:
                side.stop()
            if "memory" not in str(refusal):
                raise
            say(f"{name}: one side at a time, since {refusal}")
    if 8 * result.elements > 0.9 * available() and any(map(on_the_cpu, sides)):
        raise Refused(f"{name} takes {8 * result.elements / 1e9:.1f} GB, which are not free")
    result.bandwidth.clear()
    one_at_a_time(sides, sizes, pace, result)
    if not result.series:
        raise Refused(f"{name}: no side could take it")
    return result
