"""The training jobs of `benchmark.py`: a step of lmdyn against the same model in plain PyTorch.

Both start from the same random weights and read the same batches, so that they must end at the same
loss.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from given_models import Job, Side, use_onednn

SHAPES = {
    "tiny": {
        "vocab": 257,
        "width": 128,
        "depth": 4,
        "heads": 4,
        "head_width": 32,
        "mlp_width": 512,
        "positions": 256,
    },
    "135m": {
        "vocab": 49152,
        "width": 576,
        "depth": 30,
        "heads": 9,
        "kv_heads": 3,
        "head_width": 64,
        "mlp_width": 1536,
        "positions": 512,
        "tied_head": True,
    },
}
ROWS, STEPS, WARM = {"tiny": 16, "135m": 1}, {"tiny": 40, "135m": 8}, 2
if os.environ.get(
    "BENCHMARK_SMALL"
):  # to see that all of it runs (scripts/try_commands.py): no speed means anything
    SHAPES["tiny"] |= {"width": 16, "depth": 2, "heads": 2, "head_width": 8, "mlp_width": 32}
    SHAPES["135m"] |= {
        "vocab": 257,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "kv_heads": 1,
        "head_width": 8,
        "mlp_width": 48,
        "positions": 128,
    }
    ROWS, STEPS = {"tiny": 2, "135m": 1}, {"tiny": 3, "135m": 3}
RULE = {"learning_rate": 3e-4, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}


def make(name):
    def model(path):
        """Random weights as a Hugging Face folder, and as arrays for PyTorch."""
        from lmdyn import checkpoints, models
        from lmdyn.data.tokenizers import byte_tokenizer
        from lmdyn.params import flatten

        model = models.LanguageModel(models.ModelConfig(**SHAPES[name]))
        params = models.init(model, seed=1)
        checkpoints.export(model, params, byte_tokenizer(), path)
        np.savez(
            f"{path}.npz",
            **{"/".join(key): np.asarray(leaf) for key, leaf in flatten(params).items()},
        )
        Path(f"{path}.json").write_text(json.dumps(SHAPES[name]), encoding="utf-8")
        return f"dir:{path}"

    return model


def batches(name, stream):
    """`[steps, B, T + 1]`: every step's windows."""
    rows, length = ROWS[name], SHAPES[name]["positions"]
    size = rows * length
    cut = [stream[i * size : i * size + size + 1] for i in range(STEPS[name] + WARM)]
    window = lambda part, row: part[row * length : row * length + length + 1]
    return np.stack([[window(part, row) for row in range(rows)] for part in cut])


def lmdyn_train(name):
    def side(setting):
        import jax

        from lmdyn import checkpoints, models, training
        from lmdyn.allocator import keep_memory
        from lmdyn.data import Batch

        keep_memory()  # as a run does
        compute = models.Compute(dtype=setting.dtype, unroll=4 if name == "tiny" else 1)
        model, params = checkpoints.load(setting.model, compute)[:2]
        optimizer = training.make_optimizer(training.Optimizer(schedule="constant", **RULE), 10**6)
        step = jax.jit(training.make_step(model, optimizer), donate_argnums=0)
        held = {"state": jax.jit(lambda p: training.start(p, optimizer))(params)}
        del params
        windows = batches(name, setting.stream)

        def run(part):
            before = None
            for window in windows[part]:
                batch = Batch(window[:, :-1], window[:, 1:], np.ones(window[:, 1:].shape, bool))
                held["state"], metrics = step(held["state"], batch)
                jax.block_until_ready(
                    before
                )  # as a run does: one step ahead of the numbers it looks at
                before = metrics
            return float(metrics["loss"])

        return Side(lambda: run(slice(WARM)), lambda: run(slice(WARM, None)))

    return side


def plain(torch, shape, weights, device):
    """A decoder as one writes it in PyTorch: fused attention, fused norms, no more layers of code
    than needed.
    """
    nn, F = torch.nn, torch.nn.functional
    D, H, K = shape["width"], shape["heads"], shape["head_width"]
    G = shape.get("kv_heads", H)
    frequency = 10000.0 ** (-torch.arange(0, K, 2) / K)
    angle = torch.outer(torch.arange(shape["positions"]), frequency).repeat(1, 2).to(device)
    cos, sin = angle.cos(), angle.sin()

    weights = dict(weights)

    def linear(kernel):
        found = nn.Linear(*kernel.shape, bias=False)
        found.weight.data = torch.tensor(kernel.T.copy())
        return found

    class Block(nn.Module):
        def __init__(self, layer):
            super().__init__()
            take = lambda name: linear(weights[f"blocks/{name}/kernel"][layer])
            self.q, self.k, self.v, self.o = (
                take(f"attention/{n}") for n in ("query", "key", "value", "output")
            )
            self.gate, self.up, self.down = (take(f"mlp/{n}") for n in ("gate", "up", "down"))
            self.norm_a, self.norm_m = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)

        def forward(self, x):
            B, T, _ = x.shape
            y = self.norm_a(x)
            q, k, v = (f(y).view(B, T, -1, K).transpose(1, 2) for f in (self.q, self.k, self.v))
            turn = lambda z: (
                z * cos[:T] + torch.cat((-z[..., K // 2 :], z[..., : K // 2]), -1) * sin[:T]
            )
            y = F.scaled_dot_product_attention(
                turn(q), turn(k), v, is_causal=True, enable_gqa=G != H
            )
            x = x + self.o(y.transpose(1, 2).reshape(B, T, H * K))
            y = self.norm_m(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding.from_pretrained(
                torch.tensor(weights["embed/embedding"]), freeze=False
            )
            self.blocks = nn.ModuleList(Block(layer) for layer in range(shape["depth"]))
            self.norm = nn.RMSNorm(D, eps=1e-5)
            if shape.get("tied_head"):
                self.head = nn.Linear(D, shape["vocab"], bias=False)
                self.head.weight = self.embed.weight
            else:
                self.head = linear(weights["head/kernel"])

        def forward(self, ids):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Model()


def torch_adamw(torch, model):
    """PyTorch's AdamW by RULE; norms do not decay."""
    norms = [p for n, p in model.named_parameters() if "norm" in n]
    others = [p for n, p in model.named_parameters() if "norm" not in n]
    groups = [
        {"params": others, "weight_decay": RULE["weight_decay"]},
        {"params": norms, "weight_decay": 0.0},
    ]
    betas = (RULE["b1"], RULE["b2"])
    return torch.optim.AdamW(groups, RULE["learning_rate"], betas, RULE["eps"], fused=True)


def torch_train(name):
    def side(setting):
        import torch

        path = setting.model.removeprefix("dir:")
        torch.set_float32_matmul_precision("high")
        model = plain(torch, SHAPES[name], np.load(f"{path}.npz"), setting.device)
        if setting.side == "onednn":
            use_onednn(torch, model)
        model = model.to(setting.device)
        optimizer = torch_adamw(torch, model)
        windows = torch.from_numpy(batches(name, setting.stream)).long().to(setting.device)
        mixed = torch.autocast(setting.device, torch.bfloat16, setting.dtype == "bfloat16")

        def run(part):
            for window in windows[part]:
                with mixed:
                    logits = model(window[:, :-1])
                    loss = torch.nn.functional.cross_entropy(
                        logits.flatten(0, 1), window[:, 1:].flatten()
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), RULE["clip"])
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return loss.item()

        return Side(lambda: run(slice(WARM)), lambda: run(slice(WARM, None)))

    return side


def job(name):
    shape = SHAPES[name]
    what = f"training steps with AdamW, {ROWS[name]} x {shape['positions']} tokens"
    tokens = ROWS[name] * shape["positions"] * (STEPS[name] + WARM)
    return Job(
        lmdyn_train(name),
        torch_train(name),
        (0,),
        what,
        make(name),
        tokens,
        tokens * STEPS[name] // (STEPS[name] + WARM),
    )


JOBS = {name: job(name) for name in SHAPES}


def watch(order):
    """Seconds of 50 training steps of `tiny`, and of one measurement of the default set on as many
    tokens as a step has.
    """
    import jax

    from lmdyn import models, training
    from lmdyn.allocator import keep_memory
    from lmdyn.training import train_step
    from lmdyn.training.evaluation import Evaluator
    from lmdyn.training.prepare import prepare

    keep_memory()
    shape = SHAPES["tiny"]
    rows, length = ROWS["tiny"], shape["positions"]
    with tempfile.TemporaryDirectory() as out:
        config = training.TrainConfig(
            model=models.ModelConfig(**shape),
            data=training.Data((training.Source("builtin:docs:train"),), length=length, batch=rows),
            steps=1000,
            evaluation=training.Evaluation("builtin:docs:test", every=50, tokens=rows * length),
            compute=models.Compute(dtype=order["dtype"], unroll=4),
            mesh=(1, 1, 1),
            out=out,
        )
        prepared = prepare(config)
    update = jax.jit(train_step.make_step(prepared.model, prepared.optimizer), donate_argnums=0)
    evaluator, batches, state = Evaluator(prepared, "run"), iter(prepared.stream), prepared.first()
    times = {"train": [], "measure": []}
    for turn in range(5):
        start = time.perf_counter()
        before = None
        for _ in range(50 if turn else 3):
            state, metrics = update(state, next(batches))
            jax.block_until_ready(before)
            before = metrics
        jax.block_until_ready(state)
        middle = time.perf_counter()
        evaluator.measure(state, 0)
        times["train"].append(middle - start)
        times["measure"].append(time.perf_counter() - middle)
    return {name: values[1:] for name, values in times.items()}  # the first turn compiles


def show_watch(times):
    """Prints the share of a run's time that goes to measuring."""
    train, measure = (float(np.median(times[name])) for name in ("train", "measure"))
    shares = [m / t for m, t in zip(times["measure"], times["train"], strict=True)]
    print(
        "\nwatch: the whole default set on 4,096 held-out tokens every 50 steps of training tiny, 4"
        " turns"
    )
    print(
        f"50 steps {train:.2f} s, measuring {measure:.3f} s: {np.median(shares):.1%}"
        f" ({min(shares):.1%} to {max(shares):.1%}) more"
    )
