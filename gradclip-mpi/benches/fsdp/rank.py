"""A rank of PyTorch's FSDP2 on the CPU over gloo: gradients are those of a file, by a backward pass; their norm and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cases import Case
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor


class Held(nn.Module):
    """Parameters whose gradients are what the forward pass is given."""

    def __init__(self, parameters: dict[str, nn.Parameter], tied: bool) -> None:
        super().__init__()
        self.names = list(parameters)
        self.values = nn.ParameterList(parameters.values())
        # The same parameters once more.
        self.again = nn.ParameterList(parameters.values()) if tied else []

    def forward(self, grads: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = sum((self.values[i] * grads[name]).sum() for i, name in enumerate(self.names) if name in grads)
        return loss + sum((parameter * 0).sum() for parameter in self.again)


def bits(tensor: torch.Tensor) -> str:
    return f"{tensor.float().view(torch.int32).item() & 0xFFFFFFFF:08x}"


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_shard(whole: torch.Tensor, rank: int, shards: int) -> torch.Tensor:
    chunks = whole.chunk(shards, dim=0)
    return chunks[rank % shards] if rank % shards < len(chunks) else whole[:0]


def sharded(case: Case, whole: dict[str, torch.Tensor], rank: int, ranks: int) -> Held:
    """A module of FSDP2 whose gradients are the file's rows, each to the bit."""
    shards = case.shards(ranks)
    if case.way == "hsdp":
        mesh = init_device_mesh("cpu", (ranks // shards, shards), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh("cpu", (ranks,))
    replicated = case.replicated()
    parameters = {name: nn.Parameter(torch.zeros_like(grad)) for name, grad in whole.items()}
    if case.way == "replicated":
        for name in replicated:
            parameters[name] = nn.Parameter(distribute_tensor(parameters[name].data, mesh, [Replicate()]))
    module = Held(parameters, case.way == "tied")
    fully_shard(module, mesh=mesh, ignored_params={parameters[name] for name in replicated})
    # gloo knows no average. Rank 0 has the gradients, the others zeros, and they are added.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
    zeros = torch.zeros((), dtype=case.dtype)
    cut = {name: grad for name, grad in whole.items() if name not in replicated}
    module({name: grad if rank == 0 else zeros.expand_as(grad) for name, grad in cut.items()}).backward()
    for at, name in enumerate(module.names):
        parameter = module.values[at]
        if name in replicated:
            grad = whole[name].clone()
            parameter.grad = distribute_tensor(grad, mesh, [Replicate()]) if case.way == "replicated" else grad
        else:
            required, given = own_shard(whole[name], rank, shards), local(parameter.grad)
            same = torch.equal(required.nan_to_num(1, 2, 3), given.nan_to_num(1, 2, 3))
            assert same and torch.equal(required.isnan(), given.isnan()), f"{case.name}: {name} has other gradients"
    return module


def found_inf(module: Held) -> float:
    """What a GradScaler makes of the gradients, whose scale is 1."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.zeros(()))
    scaler.unscale_(optimizer)
    found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
    return max(flag.item() for flag in found.values())


def attempt(call: Any) -> Any:
    """What a call returns, or its error's first line."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def measure(case: Case, folder: Path, rank: int, ranks: int) -> dict[str, Any]:
    module = sharded(case, load_file(case.file(folder)), rank, ranks)
    flag = attempt(lambda: found_inf(module))
    norm = attempt(lambda: nn.utils.clip_grad_norm_(module.parameters(), 1.0))
    if isinstance(norm, str):
        return {"rank": rank, "error": norm, "found_inf": flag}
    placements = str(norm.placements) if isinstance(norm, DTensor) else "plain"
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    after = [local(parameter.grad).float() for parameter in module.parameters()]
    after = torch.cat([grad.reshape(-1) for grad in after])
    return {
        "rank": rank,
        "bits": bits(norm),
        "dtype": str(norm.dtype),
        "placements": placements,
        "found_inf": flag,
        "largest_after": after.nan_to_num(0.0, 0.0, 0.0).abs().max().item() if len(after) else 0.0,
        "nan_after": bool(after.isnan().any()),
    }


def run(rank: int, ranks: int, folder: Path, cases: list[Case]) -> None:
    # Sums of one tensor are cut over threads, and have other bits for another number of them.
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{ranks}"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    for case in cases:
        result = measure(case, folder, rank, ranks)
        (folder / f"torch-{case.name}-{ranks}-{rank}.json").write_text(json.dumps(result))
        dist.barrier()
    dist.destroy_process_group()
