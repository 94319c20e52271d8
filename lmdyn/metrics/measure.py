"""Running metrics over text."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from lmdyn import names
from lmdyn.data import check_tokens
from lmdyn.data.windows import Batch
from lmdyn.errors import InputError
from lmdyn.metrics import base
from lmdyn.metrics.entropies import attention_entropy, knowledge_entropy, prediction_entropy
from lmdyn.metrics.geometry import anisotropy
from lmdyn.metrics.likelihood import likelihood
from lmdyn.metrics.spectra import head_spectrum, layer_spectra, singular_entropy
from lmdyn.models.loss import observe
from lmdyn.models.modules import LanguageModel
from lmdyn.models.positions import check_positions
from lmdyn.types import Params, Tree

REGISTRY = {
    "nll": likelihood,
    "knowledge_entropy": knowledge_entropy,
    "attention_entropy": attention_entropy,
    "prediction_entropy": prediction_entropy,
    "anisotropy": anisotropy,
    "singular_entropy": singular_entropy,
    "layer_spectra": layer_spectra,
    "head_spectrum": head_spectrum,
}
"""Metrics by the name that rows carry; each entry makes a `Metric`."""


def build(chosen: Iterable[str] | str) -> base.Metric:
    """The combined metric of names from `REGISTRY`, and of your own by their dotted names.

    Args:
      chosen: names, or one string joined by commas. `my_package.participation` is a function
        without arguments that makes a `Metric`.

    Raises:
      InputError: an unknown name, with the known ones; what makes no metric; or no name at all.

    >>> sorted(build("nll,lmdyn.metrics.anisotropy").taps)
    ['final', 'nll', 'residual']
    """
    chosen = [n.strip() for n in chosen.split(",")] if isinstance(chosen, str) else list(chosen)
    made = {name: names.make(name, {}, REGISTRY, "metric") for name in chosen if name}
    if not made:
        raise InputError(f"no metric named; known: {', '.join(sorted(REGISTRY))}")
    for name, metric in made.items():
        if not isinstance(metric, base.Metric):
            raise InputError(
                f"metric '{name}' made {type(metric).__name__}, not a lmdyn.metrics.Metric; see"
                " lmdyn.metrics.sums"
            )
    return base.combine(**made)


@functools.lru_cache(maxsize=16)
def _step(metric: base.Metric, model):
    """The jitted `(params, state, batch) -> state`, shared by a series of checkpoints."""

    @functools.partial(jax.jit, donate_argnums=1)
    def step(params, state, batch):
        tapped = observe(model, params, batch.inputs, batch.targets, batch.mask, metric.taps)
        return metric.update(state, tapped, batch.mask)

    return step


def accumulate(
    metric: base.Metric,
    model: LanguageModel,
    params: Params,
    batches: Iterable[Batch],
    *,
    state: Tree = None,
    progress: bool = False,
    sharding: jax.sharding.Sharding | None = None,
) -> Tree:
    """The metric's state after all batches; states of several parts of the data join by `merge`.

    Args:
      metric: from this package, or `combine(...)` of several.
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      batches: an iterable of `lmdyn.data.Batch`, all of one shape.
      state: a state to continue from.
      progress: show a bar on standard error.
      sharding: a `jax.sharding.Sharding` for the batches' arrays; parameters are used where they
        lie.

    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> params, metric = models.init(model), likelihood()
    >>> half = accumulate(metric, model, params, [batches[0]])
    >>> metric.finish(
    ...     accumulate(metric, model, params, [batches[0]], state=half), params
    ... ).tokens  # all 8 predictions, twice
    16.0
    """
    if not metric.taps:
        batches = []
    if progress and metric.taps:
        from tqdm.auto import tqdm

        batches = tqdm(batches, desc="measuring", unit="batch", leave=False)
    step = _step(metric, model)
    for batch in batches:
        if isinstance(
            batch.inputs, np.ndarray
        ):  # what is on the devices already was checked by whoever put it there
            check_tokens(batch.inputs, model.config.vocab)
            check_tokens(batch.targets, model.config.vocab)
            check_positions(model.config, batch.inputs.shape[1])
        if sharding is not None:
            batch = jax.device_put(batch, sharding)
        if state is None:
            state = empty(metric, model, params, batch)
        state = step(params, state, batch)
        if progress:
            jax.block_until_ready(state)
    if state is None:
        if metric.taps:
            raise InputError("no batch to measure; give at least one window of text")
        state = metric.init({})
    return state


def empty(metric: base.Metric, model: LanguageModel, params: Params, batch: Batch) -> Tree:
    """The metric's state before any batch, for batches shaped like `batch`.

    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batch = data.windows(np.arange(9), length=4, batch=2)[0]
    >>> state = empty(likelihood(), model, models.init(model), batch)
    >>> {float(number) for number in jax.tree.leaves(state)}
    {0.0}
    """
    observed = lambda p, b: observe(model, p, b.inputs, b.targets, b.mask, metric.taps)
    return metric.init(jax.eval_shape(observed, params, batch))


def measure(
    metric: base.Metric,
    model: LanguageModel,
    params: Params,
    batches: Iterable[Batch],
    *,
    progress: bool = False,
    sharding: jax.sharding.Sharding | None = None,
) -> Any:
    """Measures `metric` over `batches`, in one forward pass per batch.

    However many metrics are combined.

    Args:
      metric: from this package, or `combine(...)` of several.
      model: as `lmdyn.load` returns it.
      params: its parameters.
      batches: `lmdyn.data.Batch`es, all of one shape (see `lmdyn.data.batches`).
      progress: show a bar on standard error.
      sharding: for the batches' arrays; parameters are used where they are.

    Returns:
      The metric's result; a dict of results by name for a combined one.

    Raises:
      InputError: there is no batch.

    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> both = base.combine(nll=likelihood(), entropy=knowledge_entropy())
    >>> found = measure(both, model, models.init(model), batches)
    >>> found["nll"].tokens, found["entropy"].per_layer.shape
    (8.0, (2,))
    """
    state = accumulate(metric, model, params, batches, progress=progress, sharding=sharding)
    return metric.finish(state, params)
