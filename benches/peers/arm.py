"""What the peers' arms share: the gradients, which benches/arm/values.rs makes too, and the protocol: commands
line by line on standard input, answers in lines of JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import shapes

BLOCK = 1 << 20


def values(first: int, count: int, dtype: str = "f32") -> np.ndarray:
    """Elements of a set from `first` on: lowbias32 of their place, as floats in [-1, 1). A bf16 is the upper half of
    one, still in 32 bits."""
    place = np.arange(first, first + count, dtype=np.uint64)
    x = place.astype(np.uint32)
    if first + count > 1 << 32:
        x ^= (place >> np.uint64(32)).astype(np.uint32) * np.uint32(0x9E3779B9)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    x >>= np.uint32(8)
    floats = x.astype(np.float32)
    floats *= np.float32(2**-23)
    floats -= np.float32(1)
    return floats if dtype == "f32" else (floats.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def blocks(first: int, count: int) -> Iterator[tuple[int, int]]:
    for at in range(first, first + count, BLOCK):
        yield at, min(BLOCK, first + count - at)


def tensors(sizes: list[int], take: Callable[[int, np.ndarray], None], threads: int, dtype: str = "f32") -> float:
    """Hands every tensor's blocks to `take(tensor, block)` in order, and returns the norm of all in f64."""
    starts = np.cumsum([0, *sizes]).tolist()
    work = [(i, *block) for i, size in enumerate(sizes) for block in blocks(starts[i], size)]
    squares = []

    def make(item: tuple[int, int, int]) -> tuple[int, np.ndarray, float]:
        index, first, count = item
        block = values(first, count, dtype)
        # Exact but for the sum: elements are multiples of 2^-23.
        wide = block.astype(np.float64)
        return index, block, float(np.sum(wide * wide))

    with ThreadPoolExecutor(threads) as pool:
        # A bounded number of blocks at a time, or all of a large set would lie in memory twice.
        for at in range(0, len(work), 16 * threads):
            for index, block, sum_ in pool.map(make, work[at : at + 16 * threads]):
                squares.append(sum_)
                take(index, block)
    return math.sqrt(math.fsum(squares))


def filled(sizes: list[int], threads: int) -> tuple[list[np.ndarray], float]:
    """The tensors of a set in host memory, and their norm."""
    whole = [np.empty(size, np.float32) for size in sizes]
    reached = [0] * len(sizes)

    def take(index: int, block: np.ndarray) -> None:
        at = reached[index]
        whole[index][at : at + len(block)] = block
        reached[index] = at + len(block)

    return whole, tensors(sizes, take, threads)


def threshold(norm: float, regime: str) -> float:
    """The one that halves, or one that nothing exceeds."""
    return float(np.float32(norm / 2)) if regime == "clipped" else math.inf


def check(first: int, own: np.ndarray, regime: str, norm: float, reference: float, dtype: str = "f32") -> None:
    """The elements from `first` on are scaled by what follows from the norm that the arm found. In bf16 norm,
    coefficient and product are rounded to eight bits each."""
    factor = threshold(reference, regime) / norm if regime == "clipped" else 1.0
    want = values(first, len(own), dtype).astype(np.float64) * factor
    if not np.allclose(own, want, rtol=2e-6 if dtype == "f32" else 2e-2, atol=0):
        worst = int(np.argmax(np.abs(own - want)))
        raise ValueError(f"{regime}: element {first + worst} is {own[worst]}, not {want[worst]}")


def judged(norm: float, reference: float) -> dict[str, float]:
    """What is told of a norm; more than 1 % off is an error, for then something else was computed."""
    error = norm / reference - 1
    if not abs(error) < 1e-2:
        raise ValueError(f"the norm is {norm}, not {reference}")
    return {"norm": norm, "error": error}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bandwidth(bytes_: int, work: Callable[[], Any]) -> float:
    """GB/s of the best of three."""
    return bytes_ / min(seconds(work) for _ in range(3)) / 1e9


class Arm(Protocol):
    """Ways of one library to clip, on one device."""

    def hello(self) -> dict[str, Any]: ...
    def load(self, sizes: list[int], dtype: str = "f32") -> dict[str, Any]: ...
    def time(self, arm: str, regime: str, repetitions: int) -> dict[str, Any]: ...
    def bandwidth(self) -> dict[str, float]: ...
    def unload(self) -> None: ...


def answer(side: Arm, line: str) -> dict[str, Any]:
    match line.split():
        case ["hello"]:
            return side.hello()
        case ["set", text]:
            return side.load(shapes.decoded(text))
        case ["set", text, ("f32" | "bf16") as dtype]:
            return side.load(shapes.decoded(text), dtype)
        case ["time", arm, ("clipped" | "kept") as regime, repetitions]:
            return side.time(arm, regime, int(repetitions))
        case ["bandwidth"]:
            return side.bandwidth()
        case ["drop"]:
            side.unload()
            return {}
    raise ValueError(f"no such command: {line}")


def serve(side: Arm) -> None:
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        try:
            said = answer(side, line)
        except (ValueError, RuntimeError, MemoryError) as error:
            side.unload()
            said = {"error": " ".join(str(error).split()) or type(error).__name__}
        print(json.dumps(said), flush=True)
