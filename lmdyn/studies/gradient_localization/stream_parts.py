"""The part of the study of gradient localization that adapts online."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax

from lmdyn import costs, data, models, online, records, transforms
from lmdyn.errors import InputError
from lmdyn.models.modules import LanguageModel
from lmdyn.params import partition
from lmdyn.studies.config import for_seed
from lmdyn.studies.gradient_localization.config import GradientLocalization
from lmdyn.studies.gradient_localization.questions import load_subject
from lmdyn.studies.gradient_localization.restrictions import MODES, Rates, restriction, selector
from lmdyn.studies.workers import remembered
from lmdyn.transforms.localization import PROFILE_GROUPS
from lmdyn.types import present

STEPS_PER_CHUNK = (1, 2)
"""Optimizer steps per chunk that online adaptation takes."""


def adapt_online(
    config: GradientLocalization, seed: int, r: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Static and online nll of a stream.

    Adaptation of everything, restricted and scaled, at every learning rate, with one step per
    chunk or two.

    Rows: `static_nll`; `online_nll` by `mode`, `rate` and `steps`, with `flops`.

    Args:
      config: of the study.
      seed: the seed.
      r: the profile that restricts adaptation, `{group: L numbers}`.
    """
    subject, plan = load_subject(config, seed), present(config.online)
    model, params = subject.model, subject.params
    docs = data.tokenize(for_seed(plan.text, seed), subject.tokenizer, plan.tokens)
    how = online.OnlineConfig(
        chunk=plan.chunk,
        end_of_text=subject.tokenizer.end_of_text,
        first=subject.tokenizer.window_token,
        tokens=plan.tokens,
    )
    chunks = online.chunk_stream(docs, how)
    static = online.evaluate(model, params, chunks, config=how)
    about = {"step": subject.reference.step, "tokens": chunks.tokens, "seed": seed}
    make = functools.partial(records.row, model=str(subject.reference), unit="nats", **about)
    rows = [make("static_nll", static.mean, flops=static.flops)]
    for steps in STEPS_PER_CHUNK:
        run = streamed(config, model, steps)
        for mode in MODES:
            rates = restriction(mode, r, seed)
            part = partition(params, selector(rates))
            flops = costs.evaluation_flops(model.config, chunks.sizes(how.context), part, steps)
            for rate in plan.learning_rates:
                nll = run(params, rates, rate, chunks)[chunks.mask]
                mean = float(nll.mean(dtype=np.float64))
                if not math.isfinite(mean):
                    raise InputError(
                        f"online nll is {mean} at learning rate {rate}; lower online.learning_rates"
                    )
                rows.append(
                    make("online_nll", mean, mode=mode, rate=rate, steps=steps, flops=flops)
                )
    return rows


@remembered
def streamed(config: GradientLocalization, model: LanguageModel, steps: int) -> Callable:
    """`(params, rates, rate, chunks) -> nll [n, C]`: adaptation with given rates of layers.

    As `online.evaluate`, but all restrictions run in one compiled program; a rate of 0 gives
    the numbers of a selector that leaves the layer out.
    """
    optimizer = optax.chain(
        optax.scale_by_adam(b1=0.0), optax.scale(-1.0), transforms.adjustable_rates(PROFILE_GROUPS)
    )
    part = partition(models.shapes(model.config), "all")
    adaptation = online.Adaptation(model, part, optimizer, steps=steps)
    core = jax.jit(
        lambda rest, carry, chunks: online.adapt(adaptation, None, rest, carry, chunks)[1][0]
    )

    def run(params, rates: Rates, rate: float, chunks):
        chosen, rest = part.split(params)
        carry = online.start(adaptation, chosen)
        return np.asarray(
            core(rest, carry._replace(optimizer=rates.put(carry.optimizer, rate)), chunks)
        )

    return run
