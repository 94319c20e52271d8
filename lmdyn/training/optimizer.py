"""The optimizer that a config describes, built from optax."""

from typing import Any

import jax
import optax

from lmdyn import names
from lmdyn.errors import InputError
from lmdyn.params import select
from lmdyn.training.config import Apply, Optimizer
from lmdyn.transforms import recall, scale_by_muon
from lmdyn.types import Params, Tree


def schedule(rule: Optimizer, steps: int) -> optax.Schedule:
    """The learning rate by step: of update number `s`, counted from 0.

    Args:
      rule: see `lmdyn.training.config.Optimizer`.
      steps: of the whole run; the last update is number `steps - 1`.

    >>> rate = schedule(
    ...     Optimizer(learning_rate=1.0, schedule="linear", warmup=2, final=0.0), steps=6
    ... )
    >>> [round(float(rate(step)), 2) for step in range(7)]
    [0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    """
    rate, last = rule.learning_rate, rule.learning_rate * rule.final
    rest = max(steps - rule.warmup + 1, 1)
    if rule.schedule == "constant":
        after = optax.constant_schedule(rate)
    elif rule.schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, rest, rule.final)
    elif rule.schedule == "linear":
        after = optax.linear_schedule(rate, last, rest)
    else:
        down = min(rule.decay_steps, rest)
        after = optax.join_schedules(
            [optax.constant_schedule(rate), optax.linear_schedule(rate, last, max(down, 1))],
            [rest - down],
        )
    if not rule.warmup:
        return lambda step: after(step + 1) if rule.schedule != "constant" else after(step)
    # update 0 has the rate of step 1: a rate of 0 would waste a batch
    return lambda step: optax.join_schedules(
        [optax.linear_schedule(0.0, rate, rule.warmup), after], [rule.warmup]
    )(step + 1)


def decayed(params: Params, what: str) -> Tree:
    """Booleans, shaped like `params`: which of them decay.

    Args:
      params: the model's parameters.
      what: `matrices`, `kernels` or a selector of whole parameters.

    Raises:
      InputError: a selector that matches nothing, or that names single layers, which a mask of
        whole parameters cannot say.

    >>> decayed({"final_norm": {"scale": 1}, "head": {"kernel": 2}}, "matrices")
    {'final_norm': {'scale': False}, 'head': {'kernel': True}}
    """
    names = {"matrices": ("kernel", "embedding"), "kernels": ("kernel",)}
    if what in names:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in names[what], params)
    chosen = select(params, what)
    if "[" in what:
        raise InputError(
            f"optimizer.decay='{what}' names single layers; weight decay takes whole parameters,"
            " such as 'blocks.mlp'"
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: tuple(key.key for key in path) in chosen, params
    )


def make_optimizer(rule: Optimizer, steps: int) -> optax.GradientTransformation:
    """The whole chain of a config's optimizer.

    Transformations of gradients, clipping, the rule with its schedule and decay, transformations of
    updates.

    Args:
      rule: see `lmdyn.training.config.Optimizer`.
      steps: of the whole run.

    Raises:
      InputError: a transformation that cannot be found or made.

    >>> params = {"head": {"kernel": jax.numpy.ones([2, 3])}}
    >>> optimizer = make_optimizer(
    ...     Optimizer(
    ...         name="sgd", learning_rate=0.5, schedule="constant", weight_decay=0.0, clip=None
    ...     ),
    ...     10,
    ... )
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> float(updates["head"]["kernel"][0, 0])
    -0.5
    """
    rate = schedule(rule, steps)
    mask = lambda params: decayed(params, rule.decay)
    wd = rule.weight_decay
    if rule.recall is not None:
        pull = rule.recall
        decay = [optax.add_decayed_weights(wd, mask)] if wd else []
        core = [
            optax.scale_by_adam(rule.b1, rule.b2, rule.eps),
            recall(pull.strength, pull.steepness, pull.middle),
            *decay,
            optax.scale_by_learning_rate(rate),
        ]
    elif rule.name == "adamw":
        core = [
            optax.adamw(
                rate, rule.b1, rule.b2, rule.eps, weight_decay=wd, mask=mask if wd else None
            )
        ]
    elif rule.name == "lion":
        core = [optax.lion(rate, rule.b1, rule.b2, weight_decay=wd, mask=mask if wd else None)]
    else:
        scale = {
            "sgd": optax.identity,
            "momentum": lambda: optax.trace(rule.b1),
            "adafactor": lambda: optax.scale_by_factored_rms(),
            "rmsprop": lambda: optax.scale_by_rms(rule.b2, rule.eps),
            "muon": lambda: scale_by_muon(
                rule.momentum, rule.b1, rule.b2, rule.eps, consistent_rms=rule.consistent_rms
            ),
        }[rule.name]()
        decay = [optax.add_decayed_weights(wd, mask)] if wd else []
        core = [scale, *decay, optax.scale_by_learning_rate(rate)]
    before = [_applied(apply) for apply in rule.apply if apply.place == "gradients"]
    after = [_applied(apply) for apply in rule.apply if apply.place == "updates"]
    clip = [] if rule.clip is None else [optax.clip_by_global_norm(rule.clip)]
    return optax.chain(*before, *clip, *core, *after)


def _applied(apply: Apply) -> optax.GradientTransformation:
    made: Any = names.make(apply.name, apply.arguments, {}, "optimizer.apply")
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise InputError(
            f"optimizer.apply: {apply.name} returned {type(made).__name__}, not an"
            " optax.GradientTransformation"
        )
    return made
