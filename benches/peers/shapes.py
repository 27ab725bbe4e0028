"""The gradient sets by name: elements of each tensor, in order. gradclip-verify/src/sets has the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9}


def gpt2(layers: int, d: int) -> list[int]:
    layer = [d, d, 3 * d * d, 3 * d, d * d, d, d, d, 4 * d * d, 4 * d, 4 * d * d, d]
    return [50257 * d, 1024 * d] + layers * layer + [d, d]


def bert_base() -> list[int]:
    d = 768
    layer = 4 * [d * d, d] + [d, d, 4 * d * d, 4 * d, 4 * d * d, d, d, d]
    return [30522 * d, 512 * d, 2 * d, d, d] + 12 * layer + [d * d, d]


def resnet50() -> list[int]:
    sizes: list[int] = []

    def convolution(outputs: int, inputs: int, kernel: int) -> None:
        sizes.extend([outputs * inputs * kernel**2, outputs, outputs])

    convolution(64, 3, 7)
    inputs = 64
    for blocks, width in [(3, 64), (4, 128), (6, 256), (3, 512)]:
        for block in range(blocks):
            convolution(width, inputs, 1)
            convolution(width, width, 3)
            convolution(4 * width, width, 1)
            if block == 0:
                convolution(4 * width, inputs, 1)
            inputs = 4 * width
    return sizes + [1000 * 2048, 1000]


def vit_b16() -> list[int]:
    d = 768
    layer = [d, d, 3 * d * d, 3 * d, d * d, d, d, d, 4 * d * d, 4 * d, 4 * d * d, d]
    return [d, 197 * d, d * 3 * 16 * 16, d] + 12 * layer + [d, d, 1000 * d, 1000]


def llama_7b() -> list[int]:
    d = 4096
    layer = 4 * [d * d] + 3 * [11008 * d] + [d, d]
    return [32000 * d] + 32 * layer + [d, 32000 * d]


def lstm() -> list[int]:
    words, h = 10_000, 1500
    return [words * h] + 2 * [4 * h * h, 4 * h * h, 4 * h, 4 * h] + [words * h, words]


MODELS: dict[str, Callable[[], list[int]]] = {
    "gpt2": lambda: gpt2(12, 768),
    "gpt2-medium": lambda: gpt2(24, 1024),
    "gpt2-xl": lambda: gpt2(48, 1600),
    "bert-base": bert_base,
    "resnet50": resnet50,
    "vit-b16": vit_b16,
    "llama-7b": llama_7b,
    "lstm": lstm,
    "splats": lambda: [n * 10**6 for n in (3, 3, 45, 3, 4, 1)],
    "tiny": lambda: 1000 * [768],
    "tinyk": lambda: 1000 * [1000],
}


def number(text: str) -> int:
    """`25M` is 25,000,000."""
    unit = SUFFIXES.get(text[-1:], 1)
    value = float(text[:-1] if unit > 1 else text) * unit
    if value != int(value) or value < 1:
        raise ValueError(text)
    return int(value)


def sizes(name: str) -> list[int]:
    """A model's name, `tiny-N` (N tensors of 768), `single-N`, `N` (one tensor) or `TxN` (T tensors of N)."""
    if name in MODELS:
        return MODELS[name]()
    try:
        if name.startswith("tiny-"):
            return number(name[5:]) * [768]
        count, _, size = name.removeprefix("single-").rpartition("x")
        return (number(count) if count else 1) * [number(size)]
    except ValueError:
        known = ", ".join(MODELS)
        raise SystemExit(f"no gradient set `{name}`; there are {known}, tiny-N, single-N, TxN") from None


def typed(name: str) -> tuple[str, str]:
    """`gpt2:bf16` is the set `gpt2` of bf16; without a type it is of f32."""
    name, _, dtype = name.partition(":")
    if dtype not in ("", "f32", "bf16"):
        raise SystemExit(f"no type `{dtype}`; there are f32 and bf16")
    return name, dtype or "f32"


def coded(of: list[int]) -> str:
    """Runs of equal sizes, as the arms read them: `3x768,5`."""
    runs = ((size, len(list(run))) for size, run in itertools.groupby(of))
    return ",".join(f"{count}x{size}" for size, count in runs)


def decoded(text: str) -> list[int]:
    runs = (run.rpartition("x") for run in text.split(","))
    return [size for count, _, n in runs for size in int(count or 1) * [int(n)]]
