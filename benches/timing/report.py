"""The table on standard output and the record as CSV."""

from __future__ import annotations

import csv
import datetime
import math
import os
import pathlib
import shutil
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from timing.rounds import Result, Series

# Below this a set may lie in caches, and memory bandwidth sets no floor.
CACHED = 1 << 24
# What is measured, the most telling first, with its heading. The share of the floor is of the first there is.
QUANTITIES: dict[str, str] = {"device": "device ms", "seconds": "ms", "record": "record ms"}

# Set, regime and arm, and what is said of them.
Where: TypeAlias = tuple[str, str, str]
Notes: TypeAlias = dict[Where, str]


@dataclass
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, method="inclusive")
        return cls(median, low, high)

    def text(self, scale: float = 1.0) -> str:
        median, low, high = (figures(x * scale) for x in (self.median, self.low, self.high))
        return f"{median} ({low} to {high})"


def figures(x: float) -> str:
    """Three digits, without an exponent."""
    digits = 2 - math.floor(math.log10(x)) if x > 0 else 0
    return f"{x:.{max(digits, 0)}f}"


@dataclass
class Comparison:
    """A set's results, with ratios of every series to one of `base` in the same regime."""

    result: Result
    base: str
    # Whether a ratio says how much faster than the base a series is, rather than how much slower.
    faster: bool
    # Whether a step of AdamW is part of it.
    steps: bool = False

    def ratio(self, series: Series, quantity: str) -> Spread | None:
        """Round by round, so that what slows the machine for a while slows both."""
        same = [s for s in self.result.series if s.arm == self.base and s.regime == series.regime]
        if not same or quantity not in series.columns or quantity not in same[0].columns:
            return None
        pairs = zip(series.columns[quantity], same[0].columns[quantity])
        return Spread.of([base / own if self.faster else own / base for own, base in pairs])

    def floor(self, regime: str) -> float | None:
        """Seconds that moving the bytes takes: once to read, and twice more to scale in place; or with a step, gradient,
        parameter and two moments read and the latter three written."""
        read, multiply = self.result.rate("read"), self.result.rate("multiply")
        if read is None or multiply is None or self.cached():
            return None
        scale = 7 / multiply if self.steps else 2 / multiply if regime == "clipped" else 0.0
        return self.result.each * self.result.elements * (1 / read + scale) / 1e9

    def cached(self) -> bool:
        return self.result.each * self.result.elements < 4 * CACHED

    def share(self, series: Series) -> float | None:
        floor = self.floor(series.regime)
        first = next(q for q in QUANTITIES if q in series.columns)
        return None if floor is None else floor / statistics.median(series.columns[first])

    def halves(self, series: Series) -> str:
        """Of an adapter's pass: how much of the bandwidth each half reaches."""
        told = []
        times = {"norm": ("read", 1), "apply": ("copy", 2 if series.regime == "clipped" else 0)}
        for half, (kind, often) in times.items():
            rate = self.result.rate(kind)
            if half in series.columns and rate and often and not self.cached():
                bytes_ = often * self.result.each * self.result.elements
                reached = bytes_ / statistics.median(series.columns[half]) / 1e9
                told.append(f"{half} {100 * reached / rate:.0f} % of {kind}")
        return ", ".join(told)

    def quantities(self) -> list[str]:
        return [q for q in QUANTITIES if any(q in series.columns for series in self.result.series)]

    def rows(self) -> Iterable[tuple[Series, list[Spread | None], list[Spread | None]]]:
        """Series by regime, with times and ratios."""
        for series in sorted(self.result.series, key=lambda s: s.regime):
            times = [Spread.of(series.columns[q]) if q in series.columns else None for q in self.quantities()]
            yield series, times, [self.ratio(series, q) for q in self.quantities()]


def table(comparisons: list[Comparison], ratio: str, note: Notes) -> str:
    """Markdown."""
    quantities = [q for q in QUANTITIES if any(q in c.quantities() for c in comparisons)]
    heads = ["set", "regime", "arm"]
    for quantity in quantities:
        heads += [QUANTITIES[quantity], ratio]
    heads += ["of the floor", "error of the norm", ""]
    lines = [heads, ["---"] * len(heads)]
    for comparison in comparisons:
        result = comparison.result
        for series, _, _ in comparison.rows():
            line = [result.name, series.regime, series.arm]
            for quantity in quantities:
                times, own = series.columns.get(quantity), comparison.ratio(series, quantity)
                line.append(Spread.of(times).text(1e3) if times else "-")
                line.append(own.text() if own and series.arm != comparison.base else "-")
            share = comparison.share(series)
            line.append("in cache" if share is None else f"{100 * share:.0f} %")
            line.append(f"{series.error:.1e}")
            line.append(note.get((result.name, series.regime, series.arm), ""))
            lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rates(comparisons: list[Comparison]) -> str:
    """Bandwidth, by set."""
    told = []
    for comparison in comparisons:
        kinds = comparison.result.bandwidth.items()
        told.append(comparison.result.name + " " + ", ".join(f"{k} {Spread.of(v).text()}" for k, v in kinds))
    return "GB/s in the same runs: " + "; ".join(told)


def machine() -> str:
    """The processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = "unknown processor"
    return f"{model}, {os.cpu_count()} processors"


def clock() -> str:
    """What is known of clocks, and how busy the machine is."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") as file:
            governor = file.read().strip()
    except OSError:
        governor = "unknown"
    told = f"governor {governor}; load {os.getloadavg()[0]:.1f}"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,clocks.max.sm,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        told += "; GPU clocks now, of memory, at most, driver: " + " ".join(answer.stdout.split())
    return told


COLUMNS = (
    "date,commit,machine,clock,set,tensors,elements,regime,arm,version,device,driver,threads,quantity,"
    "median_ms,low_ms,high_ms,gb_per_s,share_of_floor,ratio,ratio_low,ratio_high,norm_error,"
    "read_gb_per_s,multiply_gb_per_s,copy_gb_per_s,rounds,repetitions,together"
).split(",")


def record(path: pathlib.Path, comparison: Comparison, commit: str) -> None:
    """Appends to a CSV file. Low and high are quartiles; GB/s count an element once,
    where it clips three times."""
    common = [datetime.date.today().isoformat(), commit, machine(), clock()]
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        if new:
            out.writerow(COLUMNS)
        for series in comparison.result.series:
            for quantity in series.columns:
                out.writerow(common + cells(comparison, series, quantity))


def cells(comparison: Comparison, series: Series, quantity: str) -> list[object]:
    result, hello, times = comparison.result, series.side.hello, series.columns[quantity]
    spread, ratio = Spread.of(times), comparison.ratio(series, quantity)
    clipped = series.regime == "clipped"
    often = 3 if clipped else 1
    often = {"device": often, "seconds": often, "norm": 1, "apply": 2 if clipped else 0}.get(quantity, 0)
    bytes_ = often * result.each
    ratios = [ratio.median, ratio.low, ratio.high] if ratio else [None] * 3
    share = comparison.share(series) if quantity == comparison.quantities()[0] else None
    numbers = [
        *(x * 1e3 for x in (spread.median, spread.low, spread.high)),
        bytes_ * result.elements / spread.median / 1e9 if bytes_ else None,
        share,
        *ratios,
        series.error,
        *(result.rate(kind) for kind in ("read", "multiply", "copy")),
    ]
    told = ["" if x is None else f"{x:.6g}" for x in numbers]
    device = [hello.get(key) or "" for key in ("version", "device", "driver", "threads")]
    where = [result.name, result.tensors, result.elements, series.regime, series.arm]
    return [*where, *device, quantity, *told, len(times), series.repetitions, int(result.together)]
