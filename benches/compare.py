#!/usr/bin/env python3
"""Times gradient clipping side by side: arms take turns in one run, and what counts are ratios.

    compare.py peers                        this crate's CPU path, prepared and not, PyTorch and Optax
    compare.py steps                        clip and AdamW: this crate's in one call, PyTorch's foreach and fused
    compare.py commits OLD [NEW ...]        commits of this crate; `.` is the working tree
    compare.py gpu                          this crate on an adapter, PyTorch on CUDA where there is one

benches/README.md says how it is measured."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import signal
import sys
import time
from typing import Any

# The working tree stays clean.
sys.dont_write_bytecode = True

from timing import build, report, rounds
from timing.report import Comparison, Notes, Where
from timing.sides import Refused, Side

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
SETS = "25M,gpt2,1000x1000,tiny-1000,single-1000,single-100M"
# A commit is slower where it took this much longer and three quarters of the rounds agree.
SLOWER = 1.03


class Ended(Exception):
    """Somebody wants the program to end."""


def end_soon(*_: Any) -> None:
    # Who ends a program and its group tells it twice.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended


def ours(label: str, program: pathlib.Path, threads: int, *arguments: str) -> Side:
    command = [str(program.resolve()), "--serve", *arguments]
    return Side(label, command, {"RAYON_NUM_THREADS": str(threads)})


def peer(name: str, python: str, threads: int, *arguments: str) -> Side:
    script = PEERS / f"{name}_clip.py"
    return Side(name, [python, str(script), "--serve", "--threads", str(threads), *arguments])


def started(sides: list[Side]) -> list[Side]:
    for side in sides:
        side.start()
        hello = side.hello
        told = f"{side.label}: {hello['name']} {hello['version']}, {hello['device']}, {hello['threads']} threads"
        rounds.say(told + (f", commit {hello['commit']}" if hello.get("commit") else ""))
    return sides


def compared(sides: list[Side], given: argparse.Namespace, base: str, faster: bool, steps: bool = False) -> list[Comparison]:
    """Set by set, each recorded at once, so that an end before the last one loses nothing. Whoever ends the program
    still gets the table of what there is."""
    pace, end, comparisons = rounds.Pace(given.rounds, given.turn, given.pause), given.began + given.seconds, []
    names = given.sets.split(",")
    for i, name in enumerate(names):
        left = end - time.monotonic()
        if left < 0:
            rounds.say(f"{name}: left out: the {given.seconds:.0f} s are over")
            continue
        try:
            fair = dataclasses.replace(pace, end=time.monotonic() + left / (len(names) - i))
            comparison = Comparison(rounds.measure(sides, name, fair), base, faster, steps)
        except Refused as refusal:
            rounds.say(f"{name}: left out: {refusal}")
            continue
        except Ended:
            rounds.say(f"{name}: ended from outside")
            break
        comparisons.append(comparison)
        if given.csv:
            report.record(given.csv, comparison, commit_of(sides))
    for side in sides:
        side.stop()
    return comparisons


def commit_of(sides: list[Side]) -> str:
    """The commits of ours."""
    found = [side.hello["commit"] for side in sides if side.hello.get("commit")]
    return " ".join(dict.fromkeys(found)) or "unknown"


def tell(sides: list[Side], comparisons: list[Comparison], ratio: str, note: Notes | None = None) -> None:
    if not comparisons:
        sys.exit("nothing was measured")
    print(f"commit {commit_of(sides)}; {report.machine()}; {report.clock()}")
    print("Medians and quartiles of the rounds.", report.rates(comparisons), end="\n\n")
    print(report.table(comparisons, ratio, note or {}))


def peers(given: argparse.Namespace) -> int:
    program = given.arm or build.arm_here()
    python = build.python(given.venv)
    sides = [ours("gradclip", program, given.threads), ours("prepared", program, given.threads, "--prepared")]
    sides += [peer(name, python, given.threads) for name in given.peers.split(",")]
    started(sides)
    comparisons = compared(sides, given, "gradclip", False)
    tell(sides, comparisons, "× gradclip")
    return 0


def steps(given: argparse.Namespace) -> int:
    program = given.arm or build.arm_here()
    python = build.python(given.venv)
    sides = [
        ours("gradclip", program, given.threads, "--adamw"),
        peer("torch", python, given.threads, "--arms", "adamw-foreach,adamw-fused"),
    ]
    comparisons = compared(started(sides), given, "gradclip", False, steps=True)
    tell(sides, comparisons, "× gradclip")
    return 0


def commits(given: argparse.Namespace) -> int:
    revisions = [given.old, *(given.new or ["HEAD"])]
    built = [build.arm_of(revision) for revision in revisions]
    # The same commit twice shows what differences mean nothing.
    labels = [name if name not in [n for n, _ in built[:i]] else f"{name} again" for i, (name, _) in enumerate(built)]
    arm = ["--gpu"] if given.gpu else []
    sides = [ours(label, program, given.threads, *arm) for label, (_, program) in zip(labels, built)]
    comparisons = compared(started(sides), given, labels[0], True)
    slower = slower_than(comparisons)
    note = {where: f"{times:.2f}x the time" for where, times in slower.items()}
    tell(sides, comparisons, f"× as fast as {labels[0]}", note)
    told = "; ".join(f"{name} {regime} of {arm} {note[name, regime, arm]}" for name, regime, arm in note)
    print(f"Slower than {labels[0]}: {told or 'nothing, beyond the spread'}")
    return int(given.fail_above is not None and any(times > given.fail_above for times in slower.values()))


def slower_than(comparisons: list[Comparison]) -> dict[Where, float]:
    """How many times as long what is slower than its base takes."""
    found = {}
    for comparison in comparisons:
        for series, _, ratios in comparison.rows():
            first = ratios[0]
            if first and first.median < 1 / SLOWER and first.high < 1:
                found[comparison.result.name, series.regime, series.arm] = 1 / first.median
    return found


def gpu(given: argparse.Namespace) -> int:
    program = given.arm or build.arm_here()
    signal.signal(signal.SIGTERM, end_soon)
    sides = started([ours("gradclip", program, given.threads, "--gpu")])
    try:
        torch = peer("torch", given.python, given.threads, "--device", "cuda", "--arms", given.torch_arms)
        sides += started([torch])
    except (Refused, OSError, Ended) as error:
        rounds.say(f"without PyTorch on CUDA: {error}")
    comparisons = compared(sides, given, "gradclip", False)
    each = [(c, series) for c in comparisons for series in c.result.series]
    note = {(c.result.name, series.regime, series.arm): c.halves(series) for c, series in each}
    tell(sides, comparisons, "× gradclip", note)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--sets", default=SETS, help="names of benches/peers/shapes.py, by commas; on adapters also NAME:bf16"
    )
    common.add_argument("--rounds", type=int, default=9)
    common.add_argument(
        "--seconds", type=float, default=float("inf"), help="end about then: sets share what is left of the time"
    )
    common.add_argument("--turn", type=float, default=0.25, help="seconds of an arm's turn")
    common.add_argument("--pause", type=float, default=0.3, help="seconds before it")
    common.add_argument("--threads", type=int, default=2)
    common.add_argument("--csv", type=pathlib.Path, help="append the record to this file")
    prebuilt = argparse.ArgumentParser(add_help=False)
    prebuilt.add_argument("--arm", type=pathlib.Path, help="a bench target `arm` that is already built")

    one = kinds.add_parser("peers", parents=[common, prebuilt])
    one.add_argument("--venv", help="a virtual environment with the peers in it; else target/peers is made")
    one.add_argument("--peers", default="torch,optax")
    one.set_defaults(run=peers)

    four = kinds.add_parser("steps", parents=[common, prebuilt])
    four.add_argument("--venv", help="as for peers")
    four.set_defaults(run=steps)

    two = kinds.add_parser("commits", parents=[common])
    two.add_argument("old")
    two.add_argument("new", nargs="*")
    two.add_argument("--gpu", action="store_true", help="on an adapter, GRADCLIP_TEST_ADAPTER's")
    two.add_argument(
        "--fail-above", type=float, metavar="R", help="exit with 1 where more than R times the time is taken"
    )
    two.set_defaults(run=commits)

    three = kinds.add_parser("gpu", parents=[common, prebuilt])
    three.add_argument("--python", default=sys.executable, help="one that has torch, where there is one")
    three.add_argument("--torch-arms", default="foreach,single,graph", help="PyTorch's ways to clip")
    three.set_defaults(run=gpu)
    return parser.parse_args()


if __name__ == "__main__":
    began = time.monotonic()
    given = arguments()
    given.began = began
    sys.exit(given.run(given))
