"""An optimiser's state between PyTorch and gradclip.

    python3 examples/torch_state.py to-gradclip CHECKPOINT.pt RUN.safetensors
    python3 examples/torch_state.py to-torch RUN.safetensors CHECKPOINT.pt

CHECKPOINT.pt is what `torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)` writes, for an
optimiser made of `model.named_parameters()` or of `model.parameters()`; RUN.safetensors what gradclip's `Trainer::load` reads
and `Checkpoint::to_bytes` writes. `to-torch` puts
parameters and states into a CHECKPOINT.pt of the same model, whose rates, groups and order it keeps: gradclip's file has none. Needs torch and safetensors.
"""

import argparse
import os
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

# What a tensor of the state is called, there and here.
STATE = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"]


def names_of(checkpoint):
    """The parameters' names by number, as the optimiser counts them: group by group."""
    groups = checkpoint["optimizer"]["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    if all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    else:
        # Without names a single group is in the order of the model's parameters.
        if len(groups) != 1:
            sys.exit("several groups without names: make the optimiser of model.named_parameters()")
        names = list(checkpoint["model"])
    if len(names) != len(numbers):
        sys.exit(f"required as many names as parameters, given {len(names)} for {len(numbers)}")
    return dict(zip(numbers, names))


def to_gradclip(source, target):
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {}
    for number, name in names_of(checkpoint).items():
        tensors[name] = checkpoint["model"][name].detach().clone().contiguous()
        state = checkpoint["optimizer"]["state"].get(number, {})
        for key in STATE:
            if state.get(key) is not None:
                tensors[f"{name}.{key}"] = state[key].to(torch.float32).contiguous()
        if state.get("mu_product") is not None:
            tensors[f"{name}.mu_product"] = torch.tensor(float(state["mu_product"]))
        # Gradient descent counts no steps; with a momentum there has been one.
        step = state.get("step", 1 if state.get("momentum_buffer") is not None else None)
        if step is not None:
            tensors[f"{name}.step"] = torch.tensor(float(step))
    save_file(tensors, target)
    print(f"{len(tensors)} tensors of {len(names_of(checkpoint))} parameters")


def to_torch(source, target):
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if not os.path.exists(target):
        sys.exit(f"required {target} of the same model: rates, groups and the order of parameters stand there alone")
    old = torch.load(target, map_location="cpu", weights_only=True)
    kept = (*STATE, "step", "mu_product", "master", "accumulator")
    parameters = [n for n in tensors if n != "gradclip.history" and n.rpartition(".")[2] not in kept]
    numbers = {name: number for number, name in names_of(old).items()}
    missing = set(numbers) ^ set(parameters)
    if missing:
        sys.exit(f"required the same parameters in both files, given {sorted(missing)} in one")
    state = {}
    for name in parameters:
        own = {key: tensors[f"{name}.{key}"] for key in STATE if f"{name}.{key}" in tensors}
        if own and "momentum_buffer" not in own:
            own["step"] = tensors[f"{name}.step"]
            if f"{name}.mu_product" in tensors:
                own["mu_product"] = tensors[f"{name}.mu_product"]
        if own:
            state[numbers[name]] = own
    groups = old["optimizer"]["param_groups"]
    model = {**old.get("model", {}), **{name: tensors[name] for name in parameters}}
    torch.save({**old, "model": model, "optimizer": {"state": state, "param_groups": groups}}, target)
    masters = sum(name.endswith(".master") for name in tensors)
    left = f"; {masters} masters have no place there" if masters else ""
    print(f"{len(parameters)} parameters, {len(state)} with a state{left}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["to-gradclip", "to-torch"])
    parser.add_argument("source")
    parser.add_argument("target")
    arguments = parser.parse_args()
    way = to_gradclip if arguments.way == "to-gradclip" else to_torch
    way(arguments.source, arguments.target)
