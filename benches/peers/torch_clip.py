"""torch.nn.utils.clip_grad_norm_ on the gradient sets.

    torch_clip.py [--device cuda] [--sets gpt2,tiny-1000]   a table of its own arms, side by side
    torch_clip.py --serve                                   an arm of benches/compare.py

On the CPU as it is called by everybody; on CUDA with foreach, without, and under a CUDA graph; the arms adamw-foreach and
adamw-fused with a step of AdamW after it."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# The working tree stays clean.
sys.dont_write_bytecode = True

import arm
import shapes
import torch

# Of AdamW, as benches/arm/cpu.rs has it.
RATE, DECAY = 1e-3, 0.01
EPS = 1e-6  # clip_grad_norm_ adds it to the norm


class Torch:
    def __init__(self, device: str, threads: int, arms: list[str] | None = None) -> None:
        torch.set_num_threads(threads)
        self.threads, self.device = threads, torch.device(device)
        self.cuda = self.device.type == "cuda"
        self.arms = (arms or ["foreach", "single", "graph"]) if self.cuda else (arms or ["torch"])
        self.steps = any(name.startswith("adamw") for name in self.arms)
        self.unload()

    def hello(self) -> dict[str, Any]:
        device = torch.cuda.get_device_name(self.device) if self.cuda else "cpu"
        return {
            "name": "torch",
            "version": torch.__version__,
            "driver": f"CUDA {torch.version.cuda}" if self.cuda else None,
            "device": device,
            "threads": self.threads,
            "arms": self.arms,
        }

    def load(self, sizes: list[int], dtype: str = "f32") -> dict[str, Any]:
        self.unload()
        self.dtype, own = dtype, torch.bfloat16 if dtype == "bf16" else torch.float32
        self.pristine = [torch.empty(size, device=self.device, dtype=own) for size in sizes]
        reached = [0] * len(sizes)

        def take(index: int, block: Any) -> None:
            at, reached[index] = reached[index], reached[index] + len(block)
            self.pristine[index][at : at + len(block)].copy_(torch.from_numpy(block))

        self.reference = arm.tensors(sizes, take, self.threads, dtype)
        # Parameters that no step moves hold gradients and nothing else: an expanded one takes no memory.
        one = torch.ones((), device=self.device, dtype=own)
        expanded = [one.expand(size) for size in sizes]
        self.parameters = [(e.clone() if self.steps else e.detach()).requires_grad_() for e in expanded]
        for parameter, pristine in zip(self.parameters, self.pristine):
            parameter.grad = pristine.clone()
        arms = {name: self.checked(name, sizes) for name in self.arms}
        return {"tensors": len(sizes), "elements": sum(sizes), "reference": self.reference, "arms": arms}

    def checked(self, name: str, sizes: list[int]) -> dict[str, float]:
        if name.startswith("adamw"):
            return self.checked_step(name)
        norms = []
        for regime in ("clipped", "kept"):
            clip = self.clip(name, regime)
            self.restore()
            norms.append(float(clip()))
            first = 0
            for size, parameter in zip(sizes, self.parameters):
                own = parameter.grad[:16].float().cpu().numpy()
                arm.check(first, own, regime, norms[-1] + EPS, self.reference, self.dtype)
                first += size
        return arm.judged(norms[0], self.reference)

    def checked_step(self, name: str) -> dict[str, float]:
        """A first step moves by the rate against the gradient, whatever its size."""
        for parameter in self.parameters:
            parameter.detach().fill_(1)
        self.restore()
        norm = float(self.clip(name, "kept")())
        for parameter, gradient in zip(self.parameters, self.pristine):
            want = 1 - RATE * DECAY - RATE * gradient[:16].sign()
            close = torch.isclose(parameter.detach()[:16], want, rtol=0, atol=1e-6) | (gradient[:16].abs() < 1e-2)
            if not bool(close.all()):
                raise ValueError(f"{name}: parameters are {parameter[:16]}, not {want}")
        return arm.judged(norm, self.reference)

    def restore(self) -> None:
        torch._foreach_copy_([parameter.grad for parameter in self.parameters], self.pristine)
        self.wait()

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def clip(self, name: str, regime: str) -> Callable[[], torch.Tensor]:
        """Returns what clips once and gives the norm."""
        threshold = arm.threshold(self.reference, regime)
        if name.startswith("adamw"):
            return self.step(name, threshold)
        foreach = {"torch": None, "foreach": True, "single": False, "graph": True}[name]

        def clip() -> torch.Tensor:
            return torch.nn.utils.clip_grad_norm_(self.parameters, threshold, foreach=foreach)

        if name != "graph":
            return clip
        if regime not in self.graphs:
            clip()  # capture wants everything allocated before
            self.wait()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                norm = clip()
            self.graphs[regime] = (graph, norm)
        graph, norm = self.graphs[regime]

        def replay() -> torch.Tensor:
            graph.replay()
            return norm

        return replay

    def step(self, name: str, threshold: float) -> Callable[[], torch.Tensor]:
        """Returns what clips and steps once."""
        if name not in self.optimizers:
            way = {"foreach": name == "adamw-foreach", "fused": name == "adamw-fused"}
            self.optimizers[name] = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=DECAY, **way)
        optimizer = self.optimizers[name]

        def clip_and_step() -> torch.Tensor:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, threshold)
            optimizer.step()
            return norm

        return clip_and_step

    def time(self, name: str, regime: str, repetitions: int) -> dict[str, Any]:
        clip = self.clip(name, regime)
        rows = [self.once(clip) for _ in range(repetitions + 1)][1:]
        return {column: [row[column] for row in rows] for column in rows[0]}

    def once(self, clip: Callable[[], torch.Tensor]) -> dict[str, float]:
        """Wall-clock seconds with the wait; on CUDA those up to it and the device's own as well."""
        self.restore()
        if not self.cuda:
            return {"seconds": arm.seconds(clip)}
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start = time.perf_counter()
        clip()
        recorded = time.perf_counter() - start
        self.wait()
        whole = time.perf_counter() - start
        self.restore()
        begin.record()
        clip()
        end.record()
        self.wait()
        return {"seconds": whole, "record": recorded, "device": begin.elapsed_time(end) / 1e3}

    def bandwidth(self) -> dict[str, float]:
        large = torch.ones(1 << (28 if self.cuda else 26), device=self.device)
        words, other = large.view(torch.int32), torch.empty_like(large)
        size = 4 * large.numel()

        def waited(work: Callable[[], Any]) -> Callable[[], None]:
            def whole() -> None:
                work()
                self.wait()

            whole()
            return whole

        return {
            "read": arm.bandwidth(size, waited(words.max)),
            "multiply": arm.bandwidth(2 * size, waited(lambda: large.mul_(1.0))),
            "copy": arm.bandwidth(2 * size, waited(lambda: other.copy_(large))),
        }

    def unload(self) -> None:
        self.pristine: list[torch.Tensor] = []
        self.parameters: list[torch.Tensor] = []
        self.graphs: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.reference = 0.0
        if self.cuda:
            torch.cuda.empty_cache()


def table(side: Torch, names: list[str], rounds: int, repetitions: int) -> None:
    """The arms take turns; times over that of the first."""
    print(f"torch {torch.__version__} on {side.hello()['device']}; medians in ms, times the first arm's")
    for name in names:
        try:
            plain, dtype = shapes.typed(name)
            arms = side.load(shapes.sizes(plain), dtype)["arms"]
        except RuntimeError as error:
            print(f"{name}: left out: {str(error).splitlines()[0]}")
            side.unload()
            continue
        for regime in ("clipped", "kept"):
            taken: dict[str, list[float]] = {own: [] for own in side.arms}
            for _ in range(rounds):
                for own in side.arms:
                    turn = side.time(own, regime, repetitions)
                    taken[own] += turn.get("device", turn["seconds"])
            medians = {own: statistics.median(times) for own, times in taken.items()}
            base = medians[side.arms[0]]
            cells = [f"{own} {m * 1e3:.4g} ({m / base:.2f}x, {arms[own]['error']:.1e})" for own, m in medians.items()]
            print(f"{name:12} {regime:8}", " | ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="take commands on standard input")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arms", help="on CUDA foreach,single,graph; on the CPU torch; adamw-foreach,adamw-fused")
    parser.add_argument("--sets", default="gpt2,tiny-1000,1000x1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    side = Torch(given.device, given.threads, given.arms.split(",") if given.arms else None)
    if given.serve:
        arm.serve(side)
    else:
        table(side, given.sets.split(","), given.rounds, given.repetitions)


if __name__ == "__main__":
    main()
