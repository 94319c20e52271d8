"""Muon for parameters whose layers are stacked.

Jordan 2024, github.com/KellerJordan/Muon; Liu et al. 2025, arXiv 2502.16982.

`optax.contrib.muon` takes arrays of two axes for matrices. Here a block's kernels are stacked,
`[L, D, F]`, and its norm scales are `[L, D]`: it would leave the kernels to Adam, and mix the
layers' scales. So it is told which axes are a matrix.

Shape letters: L layers, D in, F out.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from lmdyn.models import products
from lmdyn.types import Params, Tree

MATRICES = ("kernel", "a", "b")
"""Arrays `[L, D, F]` of a block that are matrices: its kernels, and the factors of adapters."""


def matrix_axes(params: Params) -> Tree:
    """Which axes of every array are a matrix; None for those that Adam updates.

    Args:
      params: the nested dict of parameters, or of those that are trained.

    >>> import numpy as np
    >>> up = {"kernel": np.ones([4, 2, 3]), "bias": np.ones([4, 3])}
    >>> matrix_axes({"blocks": {"up": up}, "head": {"kernel": np.ones([2, 5])}})["blocks"]["up"]
    {'bias': None, 'kernel': MuonDimensionNumbers(reduction_axis=1, output_axis=2)}
    """

    def axes(path, leaf):
        stacked = path[0].key == "blocks" and path[-1].key in MATRICES and leaf.ndim == 3
        return MuonDimensionNumbers(1, 2) if stacked else None

    return jax.tree_util.tree_map_with_path(axes, params)


def scale_by_muon(
    momentum: float = 0.95,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    consistent_rms: float | None = None,
) -> optax.GradientTransformation:
    """Orthogonal updates for each layer's kernels; Adam's for embeddings, head, norms and biases.

    As in `optax.contrib.muon`, whose defaults these are, both with Nesterov momentum.

    Args:
      momentum: decay of the mean gradient of kernels.
      b1: decay of the mean of the others.
      b2: decay of the mean square of the others.
      eps: of both.
      consistent_rms: the root mean square of a kernel's update whatever its shape, by Liu et al.;
        with 0.2, a learning rate of AdamW suits it. None: `sqrt(max(1, F / D))` times the
        orthogonal matrix, by Jordan, with learning rates near 0.02.

    >>> import jax.numpy as jnp
    >>> gradient = {"blocks": {"up": {"kernel": jnp.array([[[3.0, 0.0], [0.0, 2.0]]])}}}
    >>> rule = scale_by_muon()
    >>> updates, _ = rule.update(gradient, rule.init(gradient), gradient)
    >>> bool(jnp.abs(updates["blocks"]["up"]["kernel"][0] - jnp.eye(2)).max() < 0.4)
    True
    """
    rule = optax.contrib.muon(
        learning_rate=-1.0,  # it turns the sign, which the learning rate does after decay
        beta=momentum,
        eps=eps,
        adam_b1=b1,
        adam_b2=b2,
        muon_weight_dimension_numbers=cast(Any, matrix_axes),
        consistent_rms=consistent_rms,
    )

    def update(updates, state, params=None):
        with products.within(jnp.float32):  # the library's own products
            return rule.update(updates, state, params)

    return optax.GradientTransformation(rule.init, update)
