"""optax.clip_by_global_norm, jitted, its gradients donated: `optax_clip.py --serve` is an arm of
benches/compare.py. On the CPU only."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

# The working tree stays clean.
sys.dont_write_bytecode = True


def environment(threads: int) -> None:
    """XLA takes as many threads as it may run on processors, and asks when it is loaded."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, own[:threads])


class Optax:
    def __init__(self, threads: int) -> None:
        environment(threads)
        import jax
        import jax.numpy as jnp
        import optax

        self.jax, self.jnp, self.optax, self.threads = jax, jnp, optax, threads
        self.copy = jax.jit(lambda tree: [leaf.copy() for leaf in tree])
        self.unload()

    def hello(self) -> dict[str, Any]:
        version = f"{self.optax.__version__}, jax {self.jax.__version__}"
        device = self.jax.devices()[0].platform
        return {"name": "optax", "version": version, "device": device, "threads": self.threads, "arms": ["optax"]}

    def load(self, sizes: list[int], dtype: str = "f32") -> dict[str, Any]:
        if dtype != "f32":
            raise ValueError("only f32")
        import arm
        import numpy as np

        self.unload()
        whole, self.reference = arm.filled(sizes, self.threads)
        # JAX may keep numpy's own memory, which is none of XLA's; a copy is.
        self.pristine = self.jax.block_until_ready(self.copy([self.jnp.asarray(t) for t in whole]))
        del whole
        for regime in ("clipped", "kept"):
            self.compiled[regime] = self.compile(arm.threshold(self.reference, regime))
        norm = float(self.jax.jit(self.optax.global_norm)(self.pristine))
        for regime, compiled in self.compiled.items():
            clipped = compiled(self.restored())
            first = 0
            for size, tensor in zip(sizes, clipped):
                arm.check(first, np.asarray(tensor)[:16], regime, norm, self.reference)
                first += size
        arms = {"optax": arm.judged(norm, self.reference)}
        return {"tensors": len(sizes), "elements": sum(sizes), "reference": self.reference, "arms": arms}

    def compile(self, threshold: float) -> Any:
        rule = self.optax.clip_by_global_norm(threshold)

        def clip(tree: list[Any]) -> list[Any]:
            return rule.update(tree, self.optax.EmptyState())[0]

        return self.jax.jit(clip, donate_argnums=0).lower(self.pristine).compile()

    def restored(self) -> list[Any]:
        """Arrays of their own, since clipping consumes them."""
        return self.jax.block_until_ready(self.copy(self.pristine))

    def time(self, arm: str, regime: str, repetitions: int) -> dict[str, Any]:
        compiled, taken = self.compiled[regime], []
        for _ in range(repetitions + 1):
            tree = self.restored()
            start = time.perf_counter()
            # Kept, so that freeing it is not timed.
            after = self.jax.block_until_ready(compiled(tree))
            taken.append(time.perf_counter() - start)
            del after
        return {"seconds": taken[1:]}

    def bandwidth(self) -> dict[str, float]:
        return {}

    def unload(self) -> None:
        self.pristine: list[Any] = []
        self.compiled: dict[str, Any] = {}
        self.reference = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="take commands on standard input")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if not given.serve:
        sys.exit("optax_clip: an arm of benches/compare.py; nothing to do by itself")
    side = Optax(given.threads)
    import arm

    arm.serve(side)


if __name__ == "__main__":
    main()
