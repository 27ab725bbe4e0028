"""Gradients that are written once, with a fixed seed, and their exact norms as Python's integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

# The embedding of GPT-2 and one of its blocks.
GPT2 = {
    "wte": (50257, 768),
    "attn.qkv": (2304, 768),
    "attn.qkv.bias": (2304,),
    "attn.proj": (768, 768),
    "attn.proj.bias": (768,),
    "ln1": (768,),
    "ln1.bias": (768,),
    "mlp.up": (3072, 768),
    "mlp.up.bias": (3072,),
    "mlp.down": (768, 3072),
    "mlp.down.bias": (768,),
    "ln2": (768,),
    "ln2.bias": (768,),
}
BLOCK = {name: shape for name, shape in GPT2.items() if name != "wte"}
# Rows that no number of ranks divides, and fewer rows than ranks.
UNEVEN = {"a": (1001, 513), "b": (5, 4099), "c": (1, 30011), "d": (3,), "e": (13, 1), "f": (767, 129)}
# Every shard of 2 or 4 ranks is whole chunks of 16,384 elements.
EVEN = {"a": (512, 1024), "b": (2048, 64), "c": (64, 4096)}


@dataclass(frozen=True)
class Case:
    name: str
    words: str
    shapes: dict[str, tuple[int, ...]]
    scale: float = 1e-2
    dtype: torch.dtype = torch.float32
    # Elements that are something else: tensor, index from the end, value.
    pokes: tuple[tuple[str, int, float], ...] = ()
    # shard; hsdp: two copies of half as many shards; tied: one parameter in two modules; replicated, ignored: those of
    # one axis on every rank, as DTensors or as plain tensors that fully_shard is told to ignore.
    way: str = "shard"

    def replicated(self) -> list[str]:
        wanted = self.way in ("replicated", "ignored")
        return [name for name, shape in self.shapes.items() if wanted and len(shape) == 1]

    def shards(self, ranks: int) -> int:
        """What a tensor is cut into: of an odd number of ranks, HSDP's have a copy each."""
        return ranks if self.way != "hsdp" else ranks // 2 if ranks % 2 == 0 else 1

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.safetensors"

    def write(self, folder: Path) -> None:
        random = np.random.Generator(np.random.Philox(20261128))
        tensors = {}
        for at, (name, shape) in enumerate(self.shapes.items()):
            # Tensors differ in magnitude, as those of layers do.
            values = random.standard_normal(shape, dtype=np.float32) * np.float32(self.scale * 2.0 ** -(at % 5))
            tensors[name] = torch.from_numpy(values).to(self.dtype)
        for name, from_end, value in self.pokes:
            tensors[name].view(-1)[-from_end] = value
        save_file(tensors, self.file(folder))


CASES = [
    Case("gpt2", "GPT-2's embedding and a block", GPT2),
    Case("even", "shards of whole chunks", EVEN),
    Case("uneven", "rows that nothing divides, empty shards", UNEVEN),
    Case("huge", "the same at 1e30", UNEVEN, scale=1e30),
    Case("tiny", "the same at 1e-30", UNEVEN, scale=1e-30),
    Case("nan", "one NaN in the last row", UNEVEN, pokes=(("a", 1, math.nan),)),
    Case("infinity", "one infinity in the last row", UNEVEN, pokes=(("a", 1, math.inf),)),
    Case("hsdp", "HSDP: each shard on two ranks", UNEVEN, way="hsdp"),
    Case("tied", "a tied parameter, in two modules", UNEVEN, way="tied"),
    Case("replicated", "biases replicated, as DTensors", BLOCK, way="replicated"),
    Case("ignored", "biases as plain tensors, `ignored_params`", BLOCK, way="ignored"),
    Case("bf16", "the block in `bf16`", BLOCK, dtype=torch.bfloat16),
]


def squares(bits: np.ndarray) -> int:
    """The sum of squares of finite f32 in units of 2^-298, exactly."""
    exponents = (bits >> 23) & 0xFF
    mantissas = (bits & 0x7FFFFF).astype(np.uint64) + np.where(exponents > 0, np.uint64(1 << 23), np.uint64(0))
    total = 0
    for exponent in np.unique(exponents):
        of_one = mantissas[exponents == exponent]
        # A square has 48 bits: each half's sum fits in 64 for 2^40 elements.
        product = of_one * of_one
        high, low = int((product >> np.uint64(24)).sum()), int((product & np.uint64(0xFFFFFF)).sum())
        total += ((high << 24) + low) << (2 * max(int(exponent) - 1, 0))
    return total


def exact(file: Path) -> Fraction | None:
    """The norm, to 2^-40 of its last place; none where an element is not finite."""
    total = 0
    for tensor in load_file(file).values():
        bits = tensor.float().contiguous().view(-1).numpy().view(np.uint32)
        if ((bits >> 23) & 0xFF == 0xFF).any():
            return None
        total += squares(bits)
    # The root of the sum in units of 2^-149, with 64 bits more.
    return Fraction(math.isqrt(total << 128), 1 << (149 + 64))


def last_place(norm: Fraction) -> Fraction:
    """The unit in the last place of f32 at a norm."""
    exponent = norm.numerator.bit_length() - norm.denominator.bit_length()
    exponent -= norm < Fraction(2) ** exponent
    return Fraction(2) ** max(exponent - 23, -149)


def value(bits: str) -> float:
    """The number that eight hexadecimal digits are in f32."""
    return float(np.array([int(bits, 16)], np.uint32).view(np.float32)[0])


def ulps(bits: str, norm: Fraction) -> float:
    """How far from the exact norm, in its units in the last place; infinite or NaN as the number is."""
    given = value(bits)
    if not math.isfinite(given):
        return given
    return float((Fraction(given) - norm) / last_place(norm))
