"""Makes runs of optimisers as tests/trajectories.rs replays them, with PyTorch, Optax and Keras on a CPU.

    pip install torch numpy safetensors optax keras
    python make_step_cases.py [FOLDER]        (step_cases beside this file, unless given)

What is not installed is left out, with a word. Every case is seeded by its name: the same versions make the
same files. A case has small tensors of several ranks, one of a single element and one of none; gradients pull
the parameters towards zero, with noise. The format is that of the cases made elsewhere: parameters `p.NNNN`
and gradients `sK.g.NNNN` in, parameters `sK.p.NNNN` after step K out, and the call in `case.json`.
"""

import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file as save_numpy

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

SHAPES = [(14, 13), (14,), (3, 2, 5, 3), (5,), (), (0, 4), (1, 33)]


class Case:
    """Parameters, gradients and what became of them."""

    def __init__(self, name, peer, function, args, note=""):
        self.name, self.note = name, note
        self.json = {"name": name, "peer": peer, "function": function, "args": args}
        self.random = np.random.default_rng(zlib.crc32(name.encode()))
        # PyTorch has no largest magnitude of a tensor without elements.
        self.shapes = [shape for shape in SHAPES if args.get("norm_type") != "inf" or 0 not in shape]
        self.first = [self.random.standard_normal(shape).astype(np.float32) for shape in self.shapes]
        self.gradients, self.after, self.keys = [], [], {}

    def gradient(self, parameters):
        """Of 0.3 p²/2, with noise whose size differs from step to step: some steps are clipped, others not."""
        size = 2.0 ** self.random.uniform(-3, 1)
        noise = [self.random.standard_normal(shape) for shape in self.shapes]
        return [np.asarray(0.3 * p + size * n, np.float32) for p, n in zip(parameters, noise)]

    def record(self, gradients, parameters):
        """Gradients as they went in, parameters as they came out."""
        self.gradients.append(gradients)
        self.after.append([np.array(p, np.float32) for p in parameters])

    def add(self, **keys):
        """A value a step, under each key."""
        for key, value in keys.items():
            self.keys.setdefault(key, []).append(value)

    def write(self, folder):
        folder = folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"p.{i:04}" for i in range(len(self.shapes))]
        given = dict(zip(names, self.first))
        expected = {}
        for k, (gradients, after) in enumerate(zip(self.gradients, self.after), 1):
            given |= {f"s{k}.g.{i:04}": g for i, g in enumerate(gradients)}
            expected |= {f"s{k}.{name}": p for name, p in zip(names, after)}
        save(given, folder / "input.safetensors")
        save(expected, folder / "expected.safetensors")
        description = self.json | {
            "input": "input.safetensors",
            "tensors": names,
            "expected": "expected.safetensors",
            "unchanged": False,
            "error": None,
            "peer_wrong": [],
            "note": self.note,
            "steps": len(self.after),
            **self.keys,
            "rtol": "2e-5",
            "atol": "1e-7",
        }
        (folder / "case.json").write_text(json.dumps(description, indent=1) + "\n")
        print(folder.name)


def save(tensors, path):
    """NumPy has no bf16, so that such gradients are tensors of PyTorch."""
    if all(isinstance(t, np.ndarray) for t in tensors.values()):
        save_numpy(tensors, path)
        return
    import torch
    from safetensors.torch import save_file as save_torch

    save_torch({k: torch.from_numpy(t) if isinstance(t, np.ndarray) else t for k, t in tensors.items()}, path)


def norm(arrays, kind=2.0):
    """In double precision, of what float32 holds."""
    flat = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
    return repr(float(np.linalg.norm(flat, kind)))


# ---------------------------------------------------------------- PyTorch


def torch_cases():
    import torch

    peer = f"torch {torch.__version__} (CPU)"
    norm_, value_ = "clip_grad_norm_", "clip_grad_value_"
    yield from [
        torch_run(peer, "torch_step_sgd_dampening", norm_, "SGD", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.05, "momentum": 0.9, "dampening": 0.4}, 5),
        torch_run(peer, "torch_step_sgd_plain_wd", norm_, "SGD", {"max_norm": 10.0, "norm_type": 2.0}, {
            "lr": 0.1, "weight_decay": 0.05}, 5),
        torch_run(peer, "torch_step_sgd_norm1_dampening_wd", norm_, "SGD", {"max_norm": 180.0, "norm_type": 1.0}, {
            "lr": 0.05, "momentum": 0.7, "dampening": 0.9, "weight_decay": 0.02}, 5),
        torch_run(peer, "torch_step_sgd_momentum_clipvalue", value_, "SGD", {"clip_value": 0.4}, {
            "lr": 0.1, "momentum": 0.9}, 5),
        torch_run(peer, "torch_step_sgd_p3", norm_, "SGD", {"max_norm": 5.0, "norm_type": 3.0}, {"lr": 0.1}, 3),
        torch_run(peer, "torch_step_adam_l2", norm_, "Adam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.1}, 5),
        torch_run(peer, "torch_step_adam_norm_inf", norm_, "Adam", {"max_norm": 2.0, "norm_type": "inf"}, {
            "lr": 0.01}, 5),
        torch_run(peer, "torch_step_adam_defaults", norm_, "Adam", {"max_norm": 1.0}, {}, 3),
        torch_run(peer, "torch_step_adamw_defaults", norm_, "AdamW", {"max_norm": 1.0}, {}, 3),
        torch_run(peer, "torch_step_adamw_20_steps", norm_, "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.02, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}, 20),
        torch_run(peer, "torch_step_adamw_nan", norm_, "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.02}, 3, nan_in=2),
        torch_run(peer, "torch_step_adam_amsgrad", norm_, "Adam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.02, "betas": [0.9, 0.5], "eps": 1e-6, "weight_decay": 0.05, "amsgrad": True}, 8),
        torch_run(peer, "torch_step_adamw_amsgrad_maximize", norm_, "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.02, "betas": [0.8, 0.7], "weight_decay": 0.1, "amsgrad": True, "maximize": True}, 8),
        torch_run(peer, "torch_step_nadam_defaults", norm_, "NAdam", {"max_norm": 1.0}, {}, 3),
        torch_run(peer, "torch_step_nadam_l2", norm_, "NAdam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.1}, 12),
        torch_run(peer, "torch_step_nadam_decoupled_maximize", norm_, "NAdam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01, "betas": [0.8, 0.95], "weight_decay": 0.1, "momentum_decay": 0.5,
            "decoupled_weight_decay": True, "maximize": True}, 12),
        torch_run(peer, "torch_step_radam_defaults", norm_, "RAdam", {"max_norm": 1.0}, {}, 8),
        torch_run(peer, "torch_step_radam_never_rectified", norm_, "RAdam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.02, "betas": [0.9, 0.6]}, 8),
        torch_run(peer, "torch_step_radam_decoupled_maximize", norm_, "RAdam", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1,
            "decoupled_weight_decay": True, "maximize": True}, 20),
        torch_run(peer, "torch_step_sgd_nesterov_maximize", norm_, "SGD", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02, "maximize": True}, 5),
        torch_run(peer, "torch_step_f16_sgd_nesterov", norm_, "SGD", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.05, "momentum": 0.9, "nesterov": True}, 4, dtype=torch.float16),
        torch_run(peer, "torch_step_f16_adamw", norm_, "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01}, 4, dtype=torch.float16),
        torch_run(peer, "torch_step_bf16_adamw", norm_, "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01}, 4, dtype=torch.bfloat16),
        torch_run(peer, "torch_step_bf16_sgd_clipvalue", value_, "SGD", {"clip_value": 0.3}, {
            "lr": 0.1, "momentum": 0.5}, 4, dtype=torch.bfloat16),
        torch_scaled_run(peer, "torch_amp_adamw_12_steps", "AdamW", {"max_norm": 12.0, "norm_type": 2.0}, {
            "lr": 0.01, "weight_decay": 0.1}, {"init_scale": 4096.0, "growth_interval": 3}, 12, (5, 10)),
        torch_scaled_run(peer, "torch_amp_sgd_dampening_first_skipped", "SGD", {"max_norm": 12.0}, {
            "lr": 0.05, "momentum": 0.9, "dampening": 0.5}, {
            "init_scale": 1500.0, "growth_interval": 2, "growth_factor": 3.0, "backoff_factor": 0.25}, 7, (1, 2)),
    ]


def torch_start(case, optimizer, options):
    import torch

    parameters = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in case.first]
    return parameters, getattr(torch.optim, optimizer)(parameters, **options)


def torch_run(peer, name, clip, optimizer, limits, options, steps, dtype=None, nan_in=None):
    """Gradients of a shorter type are clipped and used as float32."""
    import torch

    function = f"torch.nn.utils.{clip} then torch.optim.{optimizer}"
    note = "" if dtype is None else f"gradients are {dtype}; the peer clips and steps with g.float()"
    note = f"step {nan_in} has a NaN" if nan_in else note
    case = Case(name, peer, function, limits | options, note)
    parameters, optimizer = torch_start(case, optimizer, options)
    for k in range(1, steps + 1):
        gradients = [torch.from_numpy(g) for g in case.gradient([p.detach().numpy() for p in parameters])]
        if k == nan_in:
            gradients[2].view(-1)[17] = torch.nan
        gradients = gradients if dtype is None else [g.to(dtype) for g in gradients]
        for p, g in zip(parameters, gradients):
            p.grad = g.float().clone()
        kind = float(limits.get("norm_type", 2.0))
        if clip == "clip_grad_norm_":
            case.add(true_norms=norm([p.grad.numpy() for p in parameters], kind))
        returned = getattr(torch.nn.utils, clip)(parameters, **{k: float(v) for k, v in limits.items()})
        if returned is not None:
            case.add(norms=repr(float(returned)))
        optimizer.step()
        kept = gradients if dtype == torch.bfloat16 else [g.numpy() for g in gradients]
        case.record(kept, [p.detach().numpy() for p in parameters])
    return case


def torch_scaled_run(peer, name, optimizer, limits, options, scaling, steps, infinite):
    """`infinite` names the steps with an infinity."""
    import torch

    function = f"torch.amp.GradScaler('cpu'): unscale_, clip_grad_norm_, step({optimizer}), update"
    note = f"steps {infinite[0]} and {infinite[1]} have an infinity"
    case = Case(name, peer, function, limits | options | scaling, note)
    parameters, optimizer = torch_start(case, optimizer, options)
    scaler = torch.amp.GradScaler("cpu", **scaling)
    scaler.scale(torch.ones(()))
    for k in range(1, steps + 1):
        scale, before = scaler.get_scale(), [p.detach().clone() for p in parameters]
        gradients = [np.asarray(g * scale, np.float32) for g in case.gradient([p.numpy() for p in before])]
        if k in infinite:
            gradients[0][3, 5] = -np.inf
        case.add(scale_before_each_step=scale, true_norms=norm(g / np.float64(scale) for g in gradients))
        for p, g in zip(parameters, gradients):
            p.grad = torch.from_numpy(g.copy())
        scaler.unscale_(optimizer)
        returned = torch.nn.utils.clip_grad_norm_(parameters, **limits)
        scaler.step(optimizer)
        scaler.update()
        skipped = all(torch.equal(p, b) for p, b in zip(parameters, before))
        assert skipped == (k in infinite)
        case.add(norms=repr(float(returned)), step_skipped=skipped)
        case.record(gradients, [p.detach().numpy() for p in parameters])
    case.keys["final_scale"] = scaler.get_scale()
    return case


# ---------------------------------------------------------------- Optax


def optax_cases():
    import optax

    peer = f"optax {optax.__version__} (CPU)"
    # Optax corrects by 1 - b2^t in float32, which for b2 = 0.999 is off by 3e-5 of it: a learning rate that makes
    # this less than the tolerance, or a smaller b2.
    by_norm = ("clip_by_global_norm", {"max_norm": 12.0})
    yield from [
        optax_run(peer, "optax_step_adamw", by_norm, "adamw", {
            "learning_rate": 0.01, "b1": 0.9, "b2": 0.99, "eps": 1e-7, "weight_decay": 0.1}, 5),
        optax_run(peer, "optax_step_adamw_defaults", by_norm, "adamw", {"learning_rate": 0.001}, 5),
        optax_run(peer, "optax_step_adam_clip", ("clip", {"max_delta": 0.4}), "adam", {"learning_rate": 0.001}, 5),
        optax_run(peer, "optax_step_sgd_nesterov", ("clip_by_global_norm", {"max_norm": 6.0}), "sgd", {
            "learning_rate": 0.05, "momentum": 0.9, "nesterov": True}, 5),
        optax_run(peer, "optax_step_sgd_plain", by_norm, "sgd", {"learning_rate": 0.05}, 3),
        optax_run(peer, "optax_step_sgd_momentum_agc", ("adaptive_grad_clip", {"clipping": 0.2, "eps": 0.001}), "sgd", {
            "learning_rate": 0.05, "momentum": 0.8}, 5),
    ]


def optax_run(peer, name, clip, optimizer, options, steps):
    import jax.numpy as jnp
    import optax

    word, limits = clip
    case = Case(name, peer, f"optax.chain(optax.{word}, optax.{optimizer})", limits | options)
    chain = optax.chain(getattr(optax, word)(**limits), getattr(optax, optimizer)(**options))
    parameters = [jnp.asarray(p) for p in case.first]
    state = chain.init(parameters)
    for _ in range(steps):
        gradients = case.gradient([np.asarray(p) for p in parameters])
        if word == "clip_by_global_norm":
            case.add(true_norms=norm(gradients))
        updates, state = chain.update([jnp.asarray(g) for g in gradients], state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        case.record(gradients, parameters)
    return case


# ---------------------------------------------------------------- Keras


def keras_cases():
    import keras

    peer = f"keras {keras.__version__} ({keras.backend.backend()} backend, CPU)"
    yield from [
        keras_run(peer, "keras_step_sgd_nesterov_global_clipnorm", "SGD", {
            "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "global_clipnorm": 12.0}, 5),
        keras_run(peer, "keras_step_adam_big_epsilon", "Adam", {
            "learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.01, "clipvalue": 0.4}, 5),
        keras_run(peer, "keras_step_adamw_defaults_clipnorm", "AdamW", {"clipnorm": 5.0}, 3),
    ]


def keras_run(peer, name, optimizer, options, steps):
    import keras

    case = Case(name, peer, f"keras.optimizers.{optimizer}", options)
    variables = [keras.Variable(p) for p in case.first]
    optimizer = getattr(keras.optimizers, optimizer)(**options)
    optimizer.build(variables)
    for _ in range(steps):
        gradients = case.gradient([keras.ops.convert_to_numpy(v) for v in variables])
        if "global_clipnorm" in options:
            case.add(true_norms=norm(gradients))
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
        case.record(gradients, [keras.ops.convert_to_numpy(v) for v in variables])
    return case


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "step_cases"
    for cases in (torch_cases, optax_cases, keras_cases):
        try:
            for case in cases():
                case.write(folder)
        except ModuleNotFoundError as error:
            print(f"{cases.__name__}: left out, {error}")


if __name__ == "__main__":
    main()
