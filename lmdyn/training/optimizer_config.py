"""The optimizer of a run and its schedule, as dataclasses that a config file can hold."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Apply:
    """A gradient transformation by name. Part of `Optimizer`.

    So that a run can write it down: `Apply("optax.add_noise", {"eta": 0.01, ...})`.

    Attributes:
      name: a function that returns an `optax.GradientTransformation`, as `package.module.function`.
      arguments: its keyword arguments, as JSON holds them.
      place: `gradients`: before clipping and the optimizer; `updates`: after it, before nothing but
        the sum.

    >>> Apply("optax.clip", {"max_delta": 1.0}).place
    'gradients'
    """

    name: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: Literal["gradients", "updates"] = "gradients"


@dataclasses.dataclass(frozen=True)
class Recall:
    """A pull to the weights that the run starts from, less and less. Part of `Optimizer`.

    RecAdam (Chen et al. 2020), see `lmdyn.transforms.recall`.

    Attributes:
      strength: of the pull; times the learning rate, it must stay below 2.
      steepness: how fast the pull goes, per step.
      middle: the step at which pull and rule weigh the same.

    >>> Recall(strength=5.0, steepness=0.1, middle=50.0).middle
    50.0
    """

    strength: float
    steepness: float
    middle: float


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer and its schedule.

    The learning rate rises from 0 over `warmup` steps, and then: `constant`; `cosine` or `linear`
    down to `final` times the highest at the last step; `wsd`, constant until the last `decay_steps`
    and then linear (warmup, stable, decay).

    Attributes:
      name: the optimizer's name in optax; `muon` is for kernels, with Adam for all else.
      learning_rate: its highest value, after the warmup.
      schedule: how it goes down after the warmup, see above.
      warmup: steps in which it rises from 0.
      final: the share of it that is left at the last step.
      decay_steps: steps in which `wsd` goes down at the end.
      b1: decay of the running mean of gradients.
      b2: decay of the running mean of their squares.
      eps: what is added to the root of that mean.
      momentum: of muon's kernels; `b1` and `b2` are then Adam's.
      consistent_rms: the root mean square of muon's updates; 0.2 suits learning rates of AdamW,
        None (as published) ones near 0.02.
      weight_decay: decoupled, multiplied by the learning rate.
      decay: what decays: `matrices` (every kernel and embedding, no bias, no norm), `kernels` (not
        the embeddings either) or a selector.
      clip: the global norm that gradients are clipped to; None leaves them.
      apply: more transformations, in order.
      recall: with adamw, a pull to the weights that the run starts from (RecAdam).

    >>> from lmdyn.training import schedule
    >>> rule = Optimizer(
    ...     learning_rate=1e-3,
    ...     schedule="wsd",
    ...     warmup=10,
    ...     decay_steps=20,
    ...     apply=(Apply("optax.clip", {"max_delta": 1.0}),),
    ...     recall=Recall(strength=5.0, steepness=0.1, middle=50.0),
    ... )
    >>> [round(float(schedule(rule, steps=100)(step)), 6) for step in (9, 50)]
    [0.001, 0.001]
    """

    name: Literal["adamw", "sgd", "momentum", "lion", "adafactor", "rmsprop", "muon"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    warmup: int = 0
    final: float = 0.1
    decay_steps: int = 0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    consistent_rms: float | None = None
    weight_decay: float = 0.1
    decay: str = "matrices"
    clip: float | None = 1.0
    apply: Annotated[tuple[Apply, ...], tyro.conf.Fixed] = ()
    recall: Annotated[Recall | None, tyro.conf.Fixed] = None
