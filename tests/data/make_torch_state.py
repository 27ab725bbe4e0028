"""Makes tests/data/torch_state: runs that PyTorch begins and gradclip goes on with.

    python3 tests/data/make_torch_state.py

For AdamW, NAdam and SGD with momentum: five steps of a small model, its checkpoint through examples/torch_state.py (run.safetensors), and
gradients and parameters of three further steps (further.safetensors). Needs torch and safetensors.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parent.parent / "examples" / "torch_state.py"


def make(name, optimizer_of):
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    optimizer = optimizer_of(model)

    def step():
        model.zero_grad()
        loss = model(torch.randn(4, 7)).square().sum()
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        return gradients

    for _ in range(5):
        step()
    folder = HERE / "torch_state" / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = pathlib.Path(scratch) / "checkpoint.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
        run = folder / "run.safetensors"
        subprocess.run([sys.executable, SCRIPT, "to-gradclip", checkpoint, run], check=True)
        # And back: the same state.
        before = torch.load(checkpoint, weights_only=True)
        subprocess.run([sys.executable, SCRIPT, "to-torch", run, checkpoint], check=True)
        after = torch.load(checkpoint, weights_only=True)
        for number, state in before["optimizer"]["state"].items():
            for key, value in state.items():
                if value is not None:
                    assert torch.equal(torch.as_tensor(value), torch.as_tensor(after["optimizer"]["state"][number][key]))
        optimizer.load_state_dict(after["optimizer"])
    further = {}
    for k in range(1, 4):
        further.update({f"s{k}.g.{n}": g for n, g in step().items()})
        further.update({f"s{k}.p.{n}": p.detach().clone() for n, p in model.named_parameters()})
    save_file(further, folder / "further.safetensors")


make("adamw", lambda model: torch.optim.AdamW(model.named_parameters(), lr=0.01, weight_decay=0.1))
make("nadam", lambda model: torch.optim.NAdam(model.named_parameters(), lr=0.01, weight_decay=0.1))
make("sgd", lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01))
