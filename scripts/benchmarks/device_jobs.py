"""The rows of `device.py`, a function a side: what is computed, and how it is timed.

A side's function takes `(shape, job, setting)` and yields `(way, tokens, run)`: run does the work
once and waits for it. lmdyn has one way; PyTorch has `eager`, `compiled` (`torch.compile` of every
layer) and `graph` (a CUDA graph of the compiled step) where they apply.
"""

import contextlib
import functools
import time

import numpy as np
from training_steps import RULE, plain, torch_adamw

SHAPES = {
    "135m": {
        "vocab": 49152,
        "width": 576,
        "depth": 30,
        "heads": 9,
        "kv_heads": 3,
        "head_width": 64,
        "mlp_width": 1536,
        "positions": 2048,
        "tied_head": True,
    },
    "1.1b": {
        "vocab": 49152,
        "width": 2048,
        "depth": 16,
        "heads": 16,
        "head_width": 128,
        "mlp_width": 8192,
        "positions": 2048,
        "tied_head": True,
    },
}
SMALL = {
    "vocab": 128,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_width": 16,
    "mlp_width": 48,
    "positions": 64,
    "tied_head": True,
}
"""Instead of both, to see that all of it runs."""

ROWS = [
    # job, shape, arguments: rows x length, or chunks, or documents
    ("train", "135m", {"rows": 16, "length": 1024}),
    ("online", "135m", {"chunk": 32}),
    ("online", "135m", {"chunk": 128}),
    ("online", "135m", {"chunk": 512}),
    ("entropy", "135m", {"rows": 64, "length": 512}),
    ("nll", "135m", {"rows": 64, "length": 512}),
    ("default metrics", "135m", {"rows": 64, "length": 512}),
    ("documents", "135m", {"documents": 64, "chunk": 32}),
    ("documents", "135m", {"documents": 64, "chunk": 128}),
    ("documents", "135m", {"documents": 1, "chunk": 32}),
    ("gradients", "135m", {"rows": 128, "length": 40}),
    ("gradients", "135m", {"rows": 32, "length": 40}),
    ("train", "1.1b", {"rows": 8, "length": 2048}),
    ("entropy", "1.1b", {"rows": 16, "length": 2048}),
]
"""Every row of the table, what matters most first: the time may not reach for the last."""

METRICS = {
    "entropy": "knowledge_entropy",
    "nll": "nll",
    "default metrics": "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy",
}
CHUNKS, SPAN, RANK = 8, 4, 8


def tokens_of(shape, *size):
    return np.random.default_rng(0).integers(0, shape["vocab"], size)


def weights_of(shape):
    """Random weights `[L, in, out]` by name, the same for both sides; layers share one."""
    rng, (D, L, F) = np.random.default_rng(1), (shape["width"], shape["depth"], shape["mlp_width"])
    queries = shape["heads"] * shape["head_width"]
    keys = shape.get("kv_heads", shape["heads"]) * shape["head_width"]
    draw = lambda *size: rng.standard_normal(size, np.float32) * np.float32(0.02)
    sides = {"attention/query": (D, queries), "attention/key": (D, keys)}
    sides |= {"attention/value": (D, keys), "attention/output": (queries, D)}
    sides |= {"mlp/gate": (D, F), "mlp/up": (D, F), "mlp/down": (F, D)}
    stack = lambda size: np.broadcast_to(draw(*size), (L, *size))
    found = {f"blocks/{name}/kernel": stack(size) for name, size in sides.items()}
    return {**found, "embed/embedding": draw(shape["vocab"], D)}


# --- lmdyn


def lmdyn_model(shape, dtype):
    """The model, and these weights."""
    import jax
    import jax.numpy as jnp

    from lmdyn import models
    from lmdyn.params import flatten

    model = models.LanguageModel(models.ModelConfig(**shape), models.Compute(dtype=dtype))
    given = weights_of(shape)
    fill = lambda leaf: jnp.ones(leaf.shape, leaf.dtype)  # norms
    params = jax.tree.map(fill, models.shapes(model.config))
    for path in flatten(params):
        if (name := "/".join(path)) in given:
            place = functools.reduce(lambda tree, key: tree[key], path[:-1], params)
            place[path[-1]] = jnp.asarray(given[name])
    return model, params


def lmdyn_side(shape, job, setting):
    """`(way, tokens, run)` of lmdyn's side."""
    import jax

    model, params = lmdyn_model(shape, setting["dtype"])
    if job in METRICS:
        from lmdyn import data, metrics

        ids = tokens_of(shape, setting["rows"] * setting["length"] + 1)
        windows = data.windows(ids, setting["length"], setting["rows"])
        batches = [jax.device_put(batch) for batch in windows]
        metric = metrics.build(METRICS[job])
        yield "lmdyn", len(ids) - 1, lambda: metrics.measure(metric, model, params, batches)
    elif job == "train":
        yield from lmdyn_train(model, params, shape, setting)
    elif job == "gradients":
        yield from lmdyn_gradients(model, params, shape, setting)
    else:
        yield from lmdyn_online(model, params, shape, setting)


def lmdyn_train(model, params, shape, setting):
    import dataclasses

    import jax

    from lmdyn import training
    from lmdyn.data import Batch
    from lmdyn.training import fit, train_step
    from lmdyn.training.run_shapes import shapes_of

    ids = tokens_of(shape, setting["rows"], setting["length"] + 1)
    texts = training.Data(
        (training.Source("text:none"),), length=setting["length"], batch=setting["rows"]
    )
    config = training.TrainConfig(
        data=texts,
        steps=10,
        out="unused",
        model=model.config,
        compute=model.compute,
        mesh=(1, 1, 1),
    )
    mesh = training.sharding.make_mesh((1, 1, 1))
    job = shapes_of(config, mesh)
    measure = fit.step_shape(config, model.config, None, job.state)
    remat = fit.remats("auto", measure, fit.room_here())[0]  # as a run does
    model = model.clone(compute=dataclasses.replace(model.compute, remat=remat))
    optimizer = training.make_optimizer(training.Optimizer(schedule="constant", **RULE), 10**6)
    step = jax.jit(train_step.make_step(model, optimizer), donate_argnums=0)
    held = {"state": jax.jit(lambda p: train_step.start(p, optimizer))(params)}
    batch = Batch(ids[:, :-1], ids[:, 1:], np.ones(ids[:, 1:].shape, bool))
    batch = jax.device_put(batch)

    def run():
        held["state"], metrics = step(held["state"], batch)
        return {name: float(value) for name, value in metrics.items()}

    yield f"lmdyn, remat {remat}", ids[:, 1:].size, run


def lmdyn_online(model, params, shape, setting):
    import optax

    from lmdyn import online
    from lmdyn.params import low_rank

    chunk, count = setting["chunk"], setting.get("documents", 0)
    if not count:
        ids = tokens_of(shape, CHUNKS * chunk + 1)
        config = online.OnlineConfig(chunk=chunk)
        given = ([ids], optax.sgd(1e-3), config)
    else:
        ids = tokens_of(shape, count, CHUNKS * chunk + 1)
        config = online.OnlineConfig(
            chunk, adapt=low_rank("blocks.mlp", rank=RANK), reset="document", parallel=count
        )
        given = (list(ids), optax.adam(1e-3), config)
    yield (
        "lmdyn",
        max(count, 1) * CHUNKS * chunk,
        lambda: online.evaluate(model, params, *given).mean,
    )


def lmdyn_gradients(model, params, shape, setting):
    from lmdyn import metrics
    from lmdyn.data import ProbeBatch

    ids = tokens_of(shape, setting["rows"], setting["length"] + 1)
    span = np.zeros([setting["rows"], setting["length"]], bool)
    span[:, -SPAN:] = True
    probes = ProbeBatch(ids[:, :-1], ids[:, 1:], span, np.ones_like(span))
    yield (
        "lmdyn",
        span.size,
        lambda: metrics.layer_gradients(
            model, params, probes, groups=("attention", "mlp"), batch=setting["rows"]
        ),
    )


# --- PyTorch


def ways(torch, model, step, device):
    """`(way, run)`: eager; on a GPU also with every layer compiled, and that as a CUDA graph.

    Layers are compiled one by one, which is nearly as fast as the whole and takes seconds.
    """
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def waiting(function):
        def run():
            found = function()
            wait()
            return found

        return run

    yield "eager", waiting(step)
    if device != "cuda":
        return
    for block in model.blocks:
        block.compile()
    yield "compiled", waiting(step)
    with contextlib.suppress(RuntimeError):  # what cannot be captured has no graph
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        yield "graph", waiting(graph.replay)


def torch_side(shape, job, setting):
    """`(way, tokens, run)` of PyTorch's side."""
    import torch

    device = setting["device"]
    torch.set_float32_matmul_precision("highest")
    model = plain(torch, shape, weights_of(shape), device).to(device)
    mixed = functools.partial(
        torch.autocast, device, torch.bfloat16, setting["dtype"] == "bfloat16", cache_enabled=False
    )
    if job == "train":
        rows, length = setting["rows"], setting["length"]
        rule = torch_adamw(torch, model)
        for group in rule.param_groups:
            group["capturable"] = device == "cuda"
        after = lambda: (
            torch.nn.utils.clip_grad_norm_(model.parameters(), RULE["clip"]),
            rule.step(),
        )
        ids, tokens = tokens_of(shape, rows, length + 1), rows * length
    elif job == "online":
        ids, tokens = tokens_of(shape, 1, setting["chunk"] + 1), setting["chunk"]
        after = lambda: torch._foreach_add_(
            list(model.parameters()), [p.grad for p in model.parameters()], alpha=-1e-3
        )
    elif job in ("entropy", "nll"):
        yield from torch_forward(torch, model, mixed, shape, job, setting)
        return
    else:
        yield from torch_others(torch, model, mixed, shape, job, setting)
        return
    ids = torch.from_numpy(ids).to(device)

    def step():
        with mixed():
            logits = model(ids[:, :-1]).flatten(0, 1).float()
            loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
        loss.backward()
        with torch.no_grad():
            after()
        for p in model.parameters():
            p.grad = None
        return loss

    for way, run in ways(torch, model, step, device):
        yield way, tokens, run


def torch_forward(torch, model, mixed, shape, job, setting):
    """nll, or sums of the absolute coefficients of every MLP (knowledge entropy)."""
    device, size = setting["device"], (setting["rows"], setting["length"])
    ids = torch.from_numpy(tokens_of(shape, size[0], size[1] + 1)).to(device)
    sums = torch.zeros(shape["depth"], shape["mlp_width"], device=device)
    if job == "entropy":

        def remember(layer, c):
            sums[layer] += c.abs().flatten(0, 1).sum(0, dtype=torch.float32)

        for layer, block in enumerate(model.blocks):
            block.down.register_forward_pre_hook(lambda _, a, layer=layer: remember(layer, a[0]))

    def step():
        with torch.inference_mode(), mixed():
            x = model.embed(ids[:, :-1])
            for block in model.blocks:
                x = block(x)
            if job == "entropy":
                return sums
            logits = model.head(model.norm(x)).flatten(0, 1).float()
            return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")

    for way, run in ways(torch, model, step, device):
        yield way, size[0] * size[1], run


def torch_others(torch, model, mixed, shape, job, setting):
    """Documents with adapters side by side, and gradients of single sequences: eager only."""
    device = setting["device"]
    if job == "default metrics":
        return
    if job == "gradients":
        ids = torch.from_numpy(tokens_of(shape, 8, setting["length"] + 1)).to(device)

        def run():
            for row in ids:
                with mixed():
                    logits = model(row[None, :-1])[0, -SPAN:].float()
                    loss = torch.nn.functional.cross_entropy(logits, row[-SPAN:])
                loss.backward()
                norms = [p.grad.square().sum() for p in model.blocks.parameters()]
                found = torch.stack(norms).sqrt().tolist()
                model.zero_grad(set_to_none=True)
            return found

        yield "eager", 8 * setting["length"], run
        return
    count, chunk = setting["documents"], setting["chunk"]
    model.requires_grad_(False)
    ids = torch.from_numpy(tokens_of(shape, count, chunk + 1)).to(device)
    held = []
    for block in model.blocks:
        for name in ("gate", "up", "down"):
            module = getattr(block, name)
            a = torch.randn(count, module.in_features, RANK, device=device) * 0.02
            b = torch.zeros(count, RANK, module.out_features, device=device)
            held += [a.requires_grad_(), b.requires_grad_()]
            beside = lambda x, a=a, b=b, old=module.forward: old(x) + torch.bmm(torch.bmm(x, a), b)
            module.forward = beside
    rule = torch.optim.Adam(held, 1e-3, capturable=device == "cuda")

    def step():
        with mixed():
            logits = model(ids[:, :-1]).flatten(0, 1).float()
            nll = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        (nll.sum() / chunk).backward()
        rule.step()
        for leaf in held:
            leaf.grad = None
        return nll

    for way, run in ways(torch, model, step, device):
        yield way, count * chunk, run


# --- parity


def lmdyn_parity(shape, dtype, length):
    """Loss, gradient norm, and coefficients' mean, of one batch."""
    import jax
    import jax.numpy as jnp

    from lmdyn import models
    from lmdyn.models import loss

    model, params = lmdyn_model(shape, dtype)
    ids = tokens_of(shape, 2, length + 1)
    weights = jnp.full([2, length], 1 / (2 * length))

    def objective(params):
        return loss(model, params, ids[:, :-1], ids[:, 1:], weights)[0]

    value, gradient = jax.jit(jax.value_and_grad(objective))(params)
    square = sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient))
    taps = {"mlp.coefficients": lambda c, mask: jnp.mean(jnp.abs(c.astype(jnp.float32)))}
    tapped = jax.jit(lambda p: models.forward(model, p, ids[:, :-1], taps=taps).tapped)(params)
    coefficients = float(jnp.mean(tapped["mlp.coefficients"]))
    return {"nll": value.item(), "gradient norm": square**0.5, "coefficients": coefficients}


def torch_parity(shape, dtype, length, device):
    import torch

    torch.set_float32_matmul_precision("highest")
    model = plain(torch, shape, weights_of(shape), device).to(device)
    ids = torch.from_numpy(tokens_of(shape, 2, length + 1)).to(device)
    seen = []
    for block in model.blocks:
        block.down.register_forward_pre_hook(lambda _, a: seen.append(a[0].abs().float().mean()))
    with torch.autocast(device, torch.bfloat16, dtype == "bfloat16"):
        logits = model(ids[:, :-1]).flatten(0, 1).float()
        value = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
    value.backward()
    square = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    coefficients = float(torch.stack(seen).mean().detach())
    return {"nll": value.item(), "gradient norm": square**0.5, "coefficients": coefficients}


# --- one process


def timed(run, seconds):
    """`(median seconds of a run, runs)`, after two that warm up, within about so many seconds."""
    first = time.perf_counter()
    run()
    warm = time.perf_counter() - first
    run()
    found, begin = [], time.perf_counter()
    while len(found) < 3 or (time.perf_counter() - begin < seconds and len(found) < 50):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return float(np.median(found)), len(found), warm


def peak_bytes(side):
    """The most that this process has held of the device; None on a CPU."""
    if side == "lmdyn":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
