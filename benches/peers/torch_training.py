"""PyTorch's training step over four micro-batches, an arm of `benches/training.rs`: the sum of gradients as autograd makes it, the mean,
clip_grad_norm_ and AdamW, all with foreach.

    torch_training.py SET THREADS

Answers each line of standard input with the milliseconds of one step."""

from __future__ import annotations

import sys
import time

sys.dont_write_bytecode = True

import shapes
import torch

MICRO_BATCHES = 4


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    sizes = shapes.sizes(name)
    parameters = [torch.nn.Parameter(torch.rand(size)) for size in sizes]
    gradients = [torch.rand(size) * 1e-3 for size in sizes]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, foreach=True)
    for _ in sys.stdin:
        optimizer.zero_grad(set_to_none=True)
        start = time.perf_counter()
        for micro_batch in range(MICRO_BATCHES):
            if micro_batch == 0:
                # Autograd keeps the first as it is; it is a new tensor each time.
                for parameter, gradient in zip(parameters, gradients):
                    parameter.grad = gradient.clone()
            else:
                torch._foreach_add_([p.grad for p in parameters], gradients)
        torch._foreach_div_([p.grad for p in parameters], MICRO_BATCHES)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    main()
