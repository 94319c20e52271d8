"""The jobs of `benchmark.py` on a given model: each is a function a side, in JOBS."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

LENGTH, RATE = 512, 0.01
PROBES, WIDTH, SPAN = 32, 40, 4
"""Of the job `gradients`: sequences, their tokens, and the tokens of the span at their end."""


class Job(NamedTuple):
    """One piece of work: `lmdyn` and `torch` map Setting to Side; `batches` are the batch sizes
    worth trying.
    """

    lmdyn: Callable
    torch: Callable
    batches: tuple
    what: str
    model: Callable | None = None
    """Makes a model at a path and returns its reference; without it, `--model` is needed."""
    tokens: int = 0
    """How many tokens the job needs, if it decides that itself."""
    timed: int = 0
    """How many of them are timed, if not all."""


class Setting(NamedTuple):
    """What a side is told: the model's reference, token ids [N + 1], batch size, device, dtype, and
    itself.
    """

    model: str
    stream: np.ndarray
    batch: int
    device: str
    dtype: str
    side: str


class Side(NamedTuple):
    """A loaded model and its work: `warm()` compiles, `run()` does all of it and returns one number
    to compare.
    """

    warm: Callable
    run: Callable


# --- lmdyn


def lmdyn_model(setting, packed=False):
    """(model, params), computing in the setting's dtype; `packed` keeps a GGUF file's weights
    quantised in memory.
    """
    from lmdyn import checkpoints, models

    return checkpoints.load(setting.model, models.Compute(dtype=setting.dtype), packed)[:2]


def lmdyn_entropy(setting):
    from lmdyn import data, metrics

    model, params = lmdyn_model(
        setting, packed=True
    )  # as `lmdyn measure` does; the numbers are the same
    metric, windows = (
        metrics.build("knowledge_entropy"),
        data.windows(setting.stream, LENGTH, setting.batch),
    )

    def run():
        return metrics.measure(metric, model, params, windows)["knowledge_entropy"].total

    return Side(run, run)


def lmdyn_online(setting):
    import optax

    from lmdyn import online

    model, params = lmdyn_model(setting)
    config = online.OnlineConfig(chunk=LENGTH)

    def run():
        return online.evaluate(model, params, [setting.stream], optax.sgd(RATE), config).mean

    return Side(run, run)


def probes_of(stream):
    """`[P, W + 1]` token ids, one probe after another."""
    return np.stack([stream[p * WIDTH : (p + 1) * WIDTH + 1] for p in range(PROBES)])


def lmdyn_gradients(setting):
    from lmdyn import metrics
    from lmdyn.data import ProbeBatch

    model, params = lmdyn_model(setting)
    ids = probes_of(setting.stream)
    span = np.zeros([PROBES, WIDTH], bool)
    span[:, -SPAN:] = True
    probes = ProbeBatch(ids[:, :-1], ids[:, 1:], span, np.ones_like(span))

    def run():
        found = metrics.layer_gradients(
            model, params, probes, groups=("attention", "mlp"), batch=setting.batch
        )
        return float(np.mean(list(found.norms.values())))

    return Side(run, run)


# --- PyTorch, as someone who knows it would write it


def torch_model(setting):
    """(torch, the model of `transformers` with fused attention)."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_float32_matmul_precision(
        "high"
    )  # as JAX: float32 products on a GPU may use its tensor cores
    kind, _, path = setting.model.partition(":")
    folder, file = (
        (Path(path).parent, {"gguf_file": Path(path).name}) if kind == "gguf" else (path, {})
    )
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), **file, dtype=torch.float32, attn_implementation="sdpa"
    )
    if setting.side == "onednn":
        use_onednn(torch, model)
    return torch, model.eval().to(setting.device)


def use_onednn(torch, model):
    """Linear layers by oneDNN, which comes with PyTorch, and their gradients too.

    PyTorch's default, MKL, uses only half the vector width of an AMD processor: 95 GFLOP/s a core
    where oneDNN and XLA reach 210. Without this, a comparison there is one of matrix libraries.
    """

    def product(x, w):  # x [N, D], w [F, D] -> x w^T
        return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return product(x, w)

        @staticmethod
        def backward(ctx, g):
            (x, w), g = ctx.saved_tensors, g.contiguous()
            flat_g, flat_x = g.flatten(0, -2), x.flatten(0, -2)
            return product(g, w.t().contiguous()), product(
                flat_g.t().contiguous(), flat_x.t().contiguous()
            )

    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is None:
            module.forward = lambda x, module=module: Linear.apply(x, module.weight)


def torch_entropy(setting):
    torch, model = torch_model(setting)
    body = model.base_model.to(getattr(torch, setting.dtype))
    downs = [layer.mlp.down_proj for layer in body.layers]
    tokens = torch.from_numpy(setting.stream[:-1]).long().to(setting.device)
    windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    sums = torch.zeros(len(downs), downs[0].in_features, device=setting.device)

    def remember(layer, c):
        sums[layer] += (
            c.abs().flatten(0, 1).sum(0, dtype=torch.float32)
        )  # flat: 20 times the speed of sum((0, 1))

    for layer, down in enumerate(downs):
        down.register_forward_pre_hook(lambda _, args, layer=layer: remember(layer, args[0]))

    def run(count=None):
        sums.zero_()
        with torch.inference_mode():
            for batch in windows[:count].split(setting.batch):
                body(batch, use_cache=False)
        p = sums.double() / sums.double().sum(1, keepdim=True)
        return torch.special.entr(p).sum().item()

    return Side(lambda: run(setting.batch), run)


def torch_online(setting):
    torch, model = torch_model(setting)
    tokens = torch.from_numpy(setting.stream).long().to(setting.device)
    parameters = list(model.parameters())
    mixed = torch.autocast(setting.device, torch.bfloat16, setting.dtype == "bfloat16")

    def run(stop, rate):
        scores = []
        for start in range(0, stop, LENGTH):
            window = tokens[start : start + LENGTH + 1]
            with mixed:
                logits = model(window[None, :-1], use_cache=False).logits[0]
                nll = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none")
            nll.mean().backward()
            with torch.no_grad():
                for p in parameters:
                    p.add_(p.grad, alpha=-rate)
                    p.grad = None
            scores.append(nll.detach())
            del logits, nll
        return torch.cat(scores).double().mean().item()

    return Side(lambda: run(LENGTH, 0.0), lambda: run(len(tokens) - 1, RATE))


def torch_gradients(setting):
    """One sequence at a time, which is how autograd gives a sequence's own gradient."""
    torch, model = torch_model(setting)
    ids = torch.from_numpy(probes_of(setting.stream)).long().to(setting.device)
    mixed = torch.autocast(setting.device, torch.bfloat16, setting.dtype == "bfloat16")
    groups = [
        [list(block.parameters()) for block in blocks]
        for blocks in (
            [layer.self_attn for layer in model.base_model.layers],
            [layer.mlp for layer in model.base_model.layers],
        )
    ]
    wanted = {id(p) for group in groups for block in group for p in block}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)

    def run(count=PROBES):
        found = []
        for row in ids[:count]:
            with mixed:
                logits = model(row[None, :-1], use_cache=False, logits_to_keep=SPAN).logits[0]
                loss = torch.nn.functional.cross_entropy(logits.float(), row[1:][-SPAN:])
            loss.backward()
            found.append(
                [
                    [
                        torch.stack([p.grad.square().sum() for p in block]).sum().sqrt()
                        for block in group
                    ]
                    for group in groups
                ]
            )
            model.zero_grad(set_to_none=True)
        return float(np.mean([[[float(x) for x in group] for group in one] for one in found]))

    return Side(lambda: run(1), run)


JOBS = {
    "entropy": Job(lmdyn_entropy, torch_entropy, (1, 4), f"knowledge entropy, windows of {LENGTH}"),
    "online": Job(
        lmdyn_online,
        torch_online,
        (1,),
        f"SGD {RATE} on all parameters, chunks of {LENGTH}, no context",
    ),
    "gradients": Job(
        lmdyn_gradients,
        torch_gradients,
        (16, 32),
        f"gradient norms of {PROBES} sequences of {WIDTH} tokens, by layer, each its own",
        tokens=PROBES * WIDTH,
    ),
}
