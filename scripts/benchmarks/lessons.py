"""The job `lesson` of `benchmark.py`: several models go through one lesson, as in a study.

Three models of the shape `tiny` are each trained for 24 steps of 8 x 256 tokens, and before, in
between and after, 64 probes of 40 tokens are scored. lmdyn trains two at once, as a study does on
a CPU, through one compiled step.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from given_models import Job, Side, use_onednn
from training_steps import RULE, SHAPES, make, plain, torch_adamw

STARTS, STEPS, ASK, ROWS, LENGTH = 3, 24, 12, 8, 256
PROBES, WIDTH, SPAN = 64, 40, 6
SIZE = ROWS * LENGTH


def texts(stream):
    """`[steps, B, T + 1]` to train on, and `[P, W + 1]` probes, whose last tokens are asked for."""
    cut = lambda start, length: stream[start : start + length + 1]
    windows = np.stack(
        [[cut(s * SIZE + r * LENGTH, LENGTH) for r in range(ROWS)] for s in range(STEPS)]
    )
    return windows, np.stack([cut(STEPS * SIZE + p * WIDTH, WIDTH) for p in range(PROBES)])


def scaled(number):
    """By what the embedding of a starting point is multiplied, so that they differ."""
    return 1 + number / 4


def lmdyn_lesson(setting):
    import jax

    from lmdyn import checkpoints, models
    from lmdyn.allocator import keep_memory
    from lmdyn.data import Batch, ProbeBatch
    from lmdyn.studies import ContinualTraining, FactInjection
    from lmdyn.studies.injected_facts import FactStream
    from lmdyn.studies.injection_scores import Controls, make_injection
    from lmdyn.training import Optimizer

    keep_memory()
    model, params = checkpoints.load(setting.model, models.Compute(dtype=setting.dtype, unroll=4))[
        :2
    ]
    windows, probes = texts(setting.stream)
    batches = [Batch(w[:, :-1], w[:, 1:], np.ones(w[:, 1:].shape, bool)) for w in windows]
    span = np.zeros([PROBES, WIDTH], bool)
    span[:, -SPAN:] = True
    asked = ProbeBatch(probes[:, :-1], probes[:, 1:], span, np.ones_like(span))
    ask_at = tuple(range(0, STEPS + 1, ASK))
    stream = FactStream(
        batches, ask_at, ask_at, asked, np.zeros(PROBES, int), np.full(PROBES, "memorisation")
    )
    continual = ContinualTraining("", optimizer=Optimizer(schedule="constant", **RULE))
    inject = make_injection(model, continual, FactInjection(""))
    starts = [
        {**params, "embed": jax.tree.map(lambda e, n=n: e * scaled(n), params["embed"])}
        for n in range(STARTS)
    ]

    def one(start):
        return inject(start, stream, Controls(None, None, None))[-1].new.log_probability.mean()

    def run():
        with ThreadPoolExecutor(2) as pool:
            return float(np.mean(list(pool.map(one, starts))))

    return Side(lambda: one(starts[0]), run)


def torch_lesson(setting):
    import torch

    path = setting.model.removeprefix("dir:")
    weights = dict(np.load(f"{path}.npz"))
    windows, probes = (torch.from_numpy(a).long().to(setting.device) for a in texts(setting.stream))
    cross = torch.nn.functional.cross_entropy
    mixed = torch.autocast(setting.device, torch.bfloat16, setting.dtype == "bfloat16")

    @torch.no_grad()
    def ask(model):
        with mixed:
            logits = model(probes[:, :-1])[:, -SPAN:]
        return -cross(logits.flatten(0, 1).float(), probes[:, -SPAN:].flatten()).item()

    def one(number):
        model = plain(
            torch,
            SHAPES["tiny"],
            {**weights, "embed/embedding": weights["embed/embedding"] * scaled(number)},
            setting.device,
        )
        if setting.side == "onednn":
            use_onednn(torch, model)
        model = model.to(setting.device)
        optimizer = torch_adamw(torch, model)
        for number, window in enumerate(windows):
            if number % ASK == 0:
                ask(model)
            with mixed:
                loss = cross(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), RULE["clip"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return ask(model)

    def run():
        return float(np.mean([one(number) for number in range(STARTS)]))

    return Side(lambda: one(0), run)


NEED = STEPS * SIZE + PROBES * WIDTH
JOBS = {
    "lesson": Job(
        lmdyn_lesson,
        torch_lesson,
        (0,),
        f"{STARTS} models through {STEPS} steps of {ROWS} x {LENGTH} tokens, with probes",
        make("tiny"),
        NEED,
        STARTS * STEPS * SIZE,
    )
}
