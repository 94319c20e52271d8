"""The rule of dynamic evaluation: RMS statistics scale the update, a prior pulls back.

The statistics are of gradients on the training text (Krause et al. 2018, arXiv 1709.07432, "update
rule methodology").

    theta <- theta - lr g / (m + eps) + lambda min(d, 1 / lambda) (theta_0 - theta)

m is the root mean square, over batches of training text, of the gradient of a batch's mean nll, per
number; `d = m / mean(m)`; the mean of m is over parameters, of each parameter's mean, and a
parameter is one matrix or vector of one layer.

    rms = gradient_rms(model, params, batches) optimizer = optax.chain(scale_by_prior_rms(rms,
    eps=1e-5), optax.scale_by_learning_rate(lr), decay_to_prior(0.02, rms))
"""

import functools
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy

from lmdyn.errors import InputError
from lmdyn.files import atomic_write
from lmdyn.models import LanguageModel, loss
from lmdyn.models.matrices import check_array
from lmdyn.params.partitions import Partition
from lmdyn.params.selectors import flatten, unflatten
from lmdyn.types import Params, PathLike, present


class GradientRMS(NamedTuple):
    """The RMS of gradients, per parameter. Made by `gradient_rms`.

    Attributes:
      rms: m, shaped like the parameters, float32, in nats per unit of the parameter.
      mean: mean over parameters of the mean of m.
      batches: how many were seen.
    """

    rms: Any
    mean: float
    batches: int

    def of(self, part: Partition) -> "GradientRMS":
        """Of the chosen parameters alone; `mean` stays that of the whole model."""
        return self._replace(rms=part.split(self.rms)[0])


def gradient_rms(
    model: LanguageModel, params: Params, batches: Iterable, *, progress: bool = False
) -> GradientRMS:
    """The root mean square gradient over training text.

    The gradient of a batch shrinks with its tokens, so take batches as large as the chunks that
    will be adapted to.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      batches: `lmdyn.data.Batch`es, all of one shape (`lmdyn.data.batches`).
      progress: show a bar on standard error.

    Raises:
      InputError: there is no batch, or parameters are quantised.

    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model, ids = models.LanguageModel(config), np.arange(12).reshape(2, 6) % 11
    >>> found = gradient_rms(
    ...     model,
    ...     models.init(model),
    ...     [data.Batch(ids[:, :-1], ids[:, 1:], np.ones([2, 5], bool))],
    ... )
    >>> found.rms["blocks"]["mlp"]["up"]["kernel"].shape, found.batches
    ((2, 6, 10), 1)
    """
    for path, leaf in flatten(params).items():
        check_array(".".join(path), leaf, "trained")
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(batches, desc="gradients", unit="batch", leave=False)
    square, count = jax.tree.map(jnp.zeros_like, params), 0
    for count, batch in enumerate(batches, 1):
        square = _mean_square(model)(params, square, jnp.float32(count), batch)
    if not count:
        raise InputError("no batch to take gradients of; give at least one window of text")
    rms = jax.tree.map(jnp.sqrt, square)
    return GradientRMS(rms, _mean(rms), count)


@functools.lru_cache(maxsize=8)
def _mean_square(model):
    """The jitted `(params, mean of squares so far, number of the batch, batch) -> mean`."""

    def follow(params, square, count, batch):
        weights = batch.mask / jnp.maximum(batch.mask.sum(), 1).astype(jnp.float32)
        objective = lambda params: loss(
            model, params, batch.inputs, batch.targets, weights, documents=batch.documents
        )[0]
        # The running mean of g^2: m <- m + (g^2 - m) / n
        gradient = jax.grad(objective)(params)
        running = lambda mean, slope: mean + (slope * slope - mean) / count
        return jax.tree.map(running, square, gradient)

    return jax.jit(follow, donate_argnums=1)


def _mean(rms) -> float:
    """The mean over parameters of each one's mean; a stack of L layers holds L of them."""
    means = [
        (float(leaf.mean()), leaf.shape[0] if path[0] == "blocks" else 1)
        for path, leaf in flatten(rms).items()
    ]
    return sum(mean * layers for mean, layers in means) / sum(layers for _, layers in means)


def scale_by_prior_rms(rms: GradientRMS, eps: float) -> optax.GradientTransformation:
    """Divides gradients by `m + eps`.

    Args:
      rms: of exactly the parameters that are trained: `rms.of(partition(params, selector))` for a
        part of them.
      eps: as large as a small m, at least: parameters that the training text never reached have m =
        0.

    Raises:
      InputError: `eps` is not positive; at `init`, parameters of another shape than `rms`.

    >>> rms = GradientRMS({"w": jnp.array([3.0, 1.0])}, 2.0, 1)
    >>> rule = scale_by_prior_rms(rms, eps=1.0)
    >>> rule.update({"w": jnp.array([8.0, 8.0])}, rule.init({"w": jnp.zeros(2)}))[0][
    ...     "w"
    ... ].tolist()
    [2.0, 4.0]
    """
    if not eps > 0:
        raise InputError(
            f"eps={eps}: gradients are divided by m + eps, and m may be 0; use a positive eps"
        )

    # m is state, not a constant of the program: it is as large as the parameters
    def init(params):
        _check_shapes(rms.rms, params)
        return jax.tree.map(jnp.copy, rms.rms)

    def update(updates, state, params=None):
        return jax.tree.map(lambda update, m: update / (m + eps), updates, state), state

    return optax.GradientTransformation(init, update)


class PriorState(NamedTuple):
    """The parameters at `init`, and their m (None without). Made by `decay_to_prior`."""

    prior: Any
    rms: Any


def decay_to_prior(rate: float, rms: GradientRMS | None = None) -> optax.GradientTransformation:
    """A pull to the parameters as they were at `init`: adds `rate min(d, 1 / rate) (p_0 - p)`.

    It goes last in a chain, so that no learning rate scales it.

    Args:
      rate: lambda, the share of the way back that is gone at every update.
      rms: as for `scale_by_prior_rms`; None pulls all parameters alike (d = 1).

    Raises:
      InputError: a rate below 0, or above 1 without `rms`; at `init`, parameters of another shape
        than `rms`.

    >>> rule = decay_to_prior(0.25)
    >>> state = rule.init({"w": jnp.array([4.0])})
    >>> rule.update({"w": jnp.array([0.0])}, state, {"w": jnp.array([8.0])})[0]["w"].tolist()
    [-1.0]
    """
    if not 0 <= rate < np.inf or (rms is None and rate > 1):
        raise InputError(f"rate={rate}: the share of the way back to the prior is between 0 and 1")

    def init(params):
        if rms is not None:
            _check_shapes(rms.rms, params)
        return PriorState(
            jax.tree.map(jnp.copy, params), None if rms is None else jax.tree.map(jnp.copy, rms.rms)
        )

    def update(updates, state, params=None):
        if params is None:
            raise InputError(
                "decay_to_prior needs the parameters; call update(updates, state, params)"
            )
        # u <- u + min(rate m / mean(m), 1) (prior - theta), after Krause et al. 2018
        if state.rms is None:
            share = jax.tree.map(lambda _: rate, updates)
        else:
            share = jax.tree.map(
                lambda m: jnp.minimum(rate * (m / present(rms).mean), 1.0), state.rms
            )
        pulled = lambda update, share, prior, now: update + share * (prior - now)
        return jax.tree.map(pulled, updates, share, state.prior, params), state

    return optax.GradientTransformation(init, update)


def _check_shapes(rms, params):
    of = lambda tree: {".".join(path): tuple(leaf.shape) for path, leaf in flatten(tree).items()}
    found, wanted = of(rms), of(params)
    if found != wanted:
        name = sorted({name for name, _ in found.items() ^ wanted.items()})[0]
        raise InputError(
            f"gradient statistics and trained parameters differ at {name}:"
            f" {found.get(name, 'none')} and {wanted.get(name, 'none')}; take"
            " rms.of(partition(params, selector)) for the same selector"
        )


def save_rms(path: PathLike, rms: GradientRMS) -> None:
    """Writes the statistics as a safetensors file, or nothing.

    Args:
      path: for example `gradient_rms.safetensors` in the model's folder.
      rms: from `gradient_rms`.

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/gradient_rms.safetensors"
    >>> save_rms(path, GradientRMS({"head": {"kernel": jnp.ones([2, 3])}}, 1.0, 7))
    >>> load_rms(path).batches
    7
    """
    # In C order: safetensors writes an array's memory as it is.
    arrays = {
        ".".join(path): np.asarray(leaf, order="C") for path, leaf in flatten(rms.rms).items()
    }
    about = {
        "kind": "gradient_rms",
        "about": json.dumps({"mean": rms.mean, "batches": rms.batches}),
    }
    atomic_write(path, safetensors.numpy.save(arrays, about))


def load_rms(path: PathLike) -> GradientRMS:
    """Reads what `save_rms` wrote.

    Raises:
      InputError: there is no such file, or it holds something else.

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/gradient_rms.safetensors"
    >>> save_rms(path, GradientRMS({"head": {"kernel": jnp.ones([2, 3])}}, 1.0, 7))
    >>> found = load_rms(path)
    >>> found.rms["head"]["kernel"].shape, found.mean, found.batches
    ((2, 3), 1.0, 7)
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            if about.get("kind") != "gradient_rms":
                raise InputError(
                    f"{path} holds no gradient statistics; make them with gradient_rms and save_rms"
                )
            names = file.keys()
            leaves = {tuple(name.split(".")): jnp.asarray(file.get_tensor(name)) for name in names}
            return GradientRMS(unflatten(leaves), **json.loads(about["about"]))
    except (OSError, safetensors.SafetensorError) as err:
        why = " ".join(str(err).split())
        raise InputError(
            f"{path} cannot be read as gradient statistics: {why}; make them anew, with"
            " gradient_rms and save_rms or lmdyn online --optimizer rms --statistics FILE"
            " --training TEXT"
        ) from err
