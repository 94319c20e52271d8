"""Checks of a run's config that need neither its texts nor its model."""

import math
from typing import TYPE_CHECKING

from lmdyn.errors import InputError, check_least, check_types

if TYPE_CHECKING:
    from lmdyn.training.config import TrainConfig
    from lmdyn.training.optimizer_config import Optimizer


def check(config: "TrainConfig") -> None:
    """Raises for the first thing that is wrong with a config.

    Args:
      config: the run; a `TrainConfig` calls this when it is made.

    Raises:
      InputError: a value of another type, out of its range, or at odds with another.

    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> TrainConfig(
    ...     data=Data((Source("builtin:docs"),)), steps=10, out="run", start="run:a", seed=1.5
    ... )
    Traceback (most recent call last):
    lmdyn.errors.InputError: TrainConfig.seed=1.5 is of type float, not int
    """
    check_types(config)
    if (config.model is None) == (config.start is None):
        raise InputError(
            "give either model= (an architecture) or start= (a model reference), not both"
        )
    if not config.out:
        raise InputError("out='' names no folder; give one, such as runs/tiny")
    check_counts(config)
    check_adapters(config)
    if not config.data.sources:
        raise InputError("data.sources is empty; give at least one text")
    if config.data.batch % config.accumulate:
        raise InputError(
            f"data.batch={config.data.batch} does not divide into accumulate={config.accumulate}"
            " parts; use a multiple"
        )
    check_optimizer(config.optimizer, config.steps)


def check_counts(config: "TrainConfig") -> None:
    """Whole numbers of which there must be at least one.

    Raises:
      InputError: one that is below 1.

    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> TrainConfig(out="run", data=texts, steps=0, start="dir:model")  # calls this
    Traceback (most recent call last):
    lmdyn.errors.InputError: steps=0; it must be at least 1
    """
    check_least(config, steps=1, accumulate=1, log_every=1)
    check_least(config.data, "data.", length=1, batch=1)
    check_least(config.checkpoints, "checkpoints.", save=1, last=1, every=1)
    if config.evaluation is not None:
        check_least(config.evaluation, "evaluation.", every=1, tokens=1)
    for number, source in enumerate(config.data.sources):
        check_least(source, f"data.sources[{number}].", every=1)
    for number, intervention in enumerate(config.interventions):
        check_least(intervention, f"interventions[{number}].", every=1, tokens=1)


def check_adapters(config: "TrainConfig") -> None:
    """Adapters need a model that they stand beside, and are all that is trained.

    Raises:
      InputError: they are given without `start`, or together with `train` or `interventions`.

    >>> from lmdyn.training import Data, LoRA, Source, TrainConfig
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> TrainConfig(  # calls this
    ...     out="run",
    ...     data=texts,
    ...     steps=2,
    ...     start="dir:model",
    ...     train="blocks.mlp",
    ...     adapters=LoRA(),
    ... )
    Traceback (most recent call last):
    lmdyn.errors.InputError: adapters stand beside ...
    """
    alone = config.start is not None and config.train == "all" and not config.interventions
    if config.adapters is not None and not alone:
        raise InputError(
            "adapters stand beside the matrices of a given model: they need start=, and neither"
            " train= nor interventions="
        )


def check_optimizer(rule: "Optimizer", steps: int) -> None:
    """The optimizer's numbers, within their ranges and the run.

    Args:
      rule: the optimizer and its schedule.
      steps: optimizer steps of the run.

    Raises:
      InputError: one is out of its range, or RecAdam is combined with another rule than Adam.

    >>> from lmdyn.training import Optimizer
    >>> check_optimizer(Optimizer(warmup=30), steps=20)
    Traceback (most recent call last):
    lmdyn.errors.InputError: optimizer.warmup=30 is not within the run's 20 steps; use 0 to 20
    """
    if rule.recall is not None and rule.name != "adamw":
        raise InputError(f"optimizer.recall needs optimizer.name=adamw (RecAdam), not {rule.name}")
    for name in ("learning_rate", "final", "weight_decay", "eps"):
        if not 0 <= (value := getattr(rule, name)) < math.inf:
            raise InputError(f"optimizer.{name}={value}; it must be 0 or a positive number")
    if rule.clip is not None and not 0 < rule.clip < math.inf:
        raise InputError(
            f"optimizer.clip={rule.clip}; it must be positive, or None to leave gradients as they"
            " are"
        )
    for name in ("warmup", "decay_steps"):
        if not 0 <= (value := getattr(rule, name)) <= steps:
            raise InputError(
                f"optimizer.{name}={value} is not within the run's {steps} steps; use 0 to {steps}"
            )
