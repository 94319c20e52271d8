"""The decoder as Flax Linen modules: embedding, scanned blocks, final norm.

Shape letters, also as suffixes of names: B batch, T tokens, S keys (T, or W + T after a cache of
W), L layers, D width, F MLP width, H heads, G key-value heads, K head width.

`LanguageModel` is usually called through the functions of `lmdyn.models.forward`, which put its
parts together. Parameters are a plain nested dict; every parameter of the blocks has a leading axis
L.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.ad_checkpoint import checkpoint_name

from lmdyn.models import ops, rotary
from lmdyn.models.attention import CAUSAL, Reach, attend
from lmdyn.models.config import Compute, ModelConfig
from lmdyn.models.heads import head_of
from lmdyn.models.matrices import is_substitute, stored
from lmdyn.types import Array, Tree


class Shared(NamedTuple):
    """What every block reads besides its input, for all layers. Part of `LanguageModel`."""

    mask: Array
    """`[B, T]`: which tokens count in taps."""
    query_angles: Any = None
    key_angles: Any = None
    reach: Reach = CAUSAL


LAYER_INPUT = "layer_input"
"""The name by which a layer's input is found, to keep it in the host's memory."""

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
"""What a rematerialised layer keeps beside its input; nothing, where there is none."""


def _rematerialized(module: Any, compute: Compute, *where: str) -> Any:
    """The module, computed again in the backward pass if `compute.remat` is one of `where`."""
    if compute.remat not in where:
        return module
    # As two loops, forward and backward pass share nothing; unrolled, the compiler would see that
    # they compute the same.
    shared = compute.unroll > 1
    return nn.remat(module, prevent_cse=shared, policy=POLICIES.get(compute.remat))


def _std(config: ModelConfig, writes_residual: bool) -> float:
    if config.init == "small":
        return (
            2 / (config.depth * config.width**0.5)
            if writes_residual
            else (2 / (5 * config.width)) ** 0.5
        )
    return config.init_std / (
        (2 * config.depth) ** 0.5 if config.init == "depth" and writes_residual else 1.0
    )


def _matrix(module: nn.Module, name: str, std: float, shape):
    """The module's matrix: a float32 array `shape`, or its replacement."""
    if module.has_variable("params", name) and is_substitute(
        found := module.get_variable("params", name)
    ):
        return found
    return module.param(name, nn.initializers.normal(std), shape)


class Linear(nn.Module):
    """`x W + b`, W drawn with standard deviation `std`.

    >>> y, variables = Linear(3, bias=True, std=0.02).init_with_output(
    ...     jax.random.key(0), jnp.ones([2, 5])
    ... )
    >>> y.shape, variables["params"]["kernel"].shape
    ((2, 3), (5, 3))
    """

    features: int
    bias: bool
    std: float

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        """`[..., in]` to `[..., features]`."""
        kernel = _matrix(self, "kernel", self.std, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else None
        return ops.linear(x, kernel, bias)


class Norm(nn.Module):
    """The config's norm; if `bare`, a norm with a scale and no bias, of kind `kind`.

    >>> from lmdyn.models.config import ModelConfig
    >>> config = ModelConfig(
    ...     vocab=11,
    ...     width=4,
    ...     depth=2,
    ...     heads=2,
    ...     head_width=2,
    ...     mlp_width=10,
    ...     positions=16,
    ...     norm="rms",
    ... )
    >>> y, _ = Norm(config).init_with_output(
    ...     jax.random.key(0), jnp.array([3.0, 3.0, -3.0, 3.0])
    ... )
    >>> y.round(3).tolist()
    [1.0, 1.0, -1.0, 1.0]
    """

    config: ModelConfig
    kind: str = ""
    bare: bool = False

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        """`[..., D]` to `[..., D]`."""
        config, shape = self.config, (x.shape[-1],)
        scale = bias = None
        if config.norm_scale or self.bare:
            scale = self.param("scale", nn.initializers.ones, shape)
        if config.norm_bias and not self.bare:
            bias = self.param("bias", nn.initializers.zeros, shape)
        return ops.normalize(x, scale, bias, kind=self.kind or config.norm, eps=config.norm_eps)


class Embed(nn.Module):
    """A table of `size` vectors.

    >>> x, _ = Embed(size=11, width=4, std=0.02).init_with_output(
    ...     jax.random.key(0), jnp.array([3, 5])
    ... )
    >>> x.shape
    (2, 4)
    """

    size: int
    width: int
    std: float
    batch_sharding: jax.sharding.NamedSharding | None = None

    @nn.compact
    def __call__(self, ids: Array) -> jax.Array:
        """`[...]` integers to `[..., width]`."""
        table = _matrix(self, "embedding", self.std, (self.size, self.width))
        # Gathered along the width first: else the gradient of every token would be gathered on
        # every device.
        return stored(ops.all_gather_axis(table, 1, self.batch_sharding)[ids])[0]


class Attention(nn.Module):
    """Causal self-attention with grouped heads and a cache. Part of `LanguageModel`."""

    config: ModelConfig
    compute: Compute
    tap: Callable | None = None
    batch_sharding: jax.sharding.NamedSharding | None = None

    @nn.compact
    def __call__(self, x_BTD: Array, cache: Tree, shared: Shared) -> tuple[jax.Array, Any, Any]:
        """Returns `[B, T, D]`, the cache with the T new keys and values, and the tap's sums."""
        config = self.config
        query_BTHK, key_BSGK, value_BSGK = self._project(x_BTD)
        if cache is not None:  # S = W + T: the cache's keys come before these
            key_BSGK, value_BSGK, cache = _extend(cache, key_BSGK, value_BSGK)
        if shared.query_angles is not None:
            query_BTHK = rotary.rotate(query_BTHK, shared.query_angles)
            key_BSGK = rotary.rotate(key_BSGK, shared.key_angles)

        y_BTHK, tapped = attend(
            query_BTHK * config.head_width**-0.5,
            key_BSGK,
            value_BSGK,
            shared.reach,
            kernel=self.compute.attention,
            tap=self.tap,
            mask=shared.mask,
            sharding=self.batch_sharding,
        )
        y_BTD = y_BTHK.reshape(*x_BTD.shape[:2], config.heads * config.head_width)
        output = Linear(config.width, config.output_bias, _std(config, True), name="output")
        return output(y_BTD), cache, tapped

    def _project(self, x_BTD):
        """Queries `[B, T, H, K]`, keys and values `[B, T, G, K]`, before rotation."""
        config = self.config

        def project(name, heads):
            features, std = heads * config.head_width, _std(config, False)
            y = Linear(features, config.qkv_bias, std, name=name)(x_BTD)
            return y if config.clip_qkv is None else jnp.clip(y, -config.clip_qkv, config.clip_qkv)

        def split(y, heads):
            return y.reshape(*x_BTD.shape[:2], heads, config.head_width)

        query, key = project("query", config.heads), project("key", config.kv_heads)
        value = split(project("value", config.kv_heads), config.kv_heads)
        # The norm is over all heads together (OLMo 2), or over each head (Qwen 3).
        norm = lambda name: Norm(config, "rms", True, name=name)
        if config.query_key_norm == "all":
            query, key = norm("query_norm")(query), norm("key_norm")(key)
        query, key = split(query, config.heads), split(key, config.kv_heads)
        if config.query_key_norm == "head":
            query, key = norm("query_norm")(query), norm("key_norm")(key)
        return query, key, value


def _extend(cache, key, value):
    """Keys and values with the cache's before them, and the cache of the last W of them."""
    key = jnp.concatenate([cache["key"].astype(key.dtype), key], 1)
    value = jnp.concatenate([cache["value"].astype(value.dtype), value], 1)
    first = key.shape[1] - cache["key"].shape[1]
    return key, value, {"key": key[:, first:], "value": value[:, first:]}


class MLP(nn.Module):
    """`act(x gate) * (x up)` or `act(x up)`, times `down`. Part of `LanguageModel`."""

    config: ModelConfig
    tap: Callable | None = None

    @nn.compact
    def __call__(self, x_BTD: Array, mask: Array) -> tuple[jax.Array, Any]:
        """`[B, T, D]` to `[B, T, D]`, and what the tap makes of the coefficients `[B, T, F]`."""
        config = self.config
        widen = lambda name: Linear(
            config.mlp_width, config.mlp_bias, _std(config, False), name=name
        )(x_BTD)
        if config.gated:
            coefficients = ops.activate(widen("gate"), widen("up"), config.activation)
        else:
            coefficients = ops.activate(widen("up"), None, config.activation)
        tapped = None if self.tap is None else self.tap(coefficients, mask)
        down = Linear(config.width, config.mlp_bias, _std(config, True), name="down")
        return down(coefficients), tapped


class Block(nn.Module):
    """One layer, `(x, cache, shared) -> (x, (cache, tapped))`. Part of `LanguageModel`."""

    config: ModelConfig
    compute: Compute
    taps: Mapping[str, Callable]
    batch_sharding: jax.sharding.NamedSharding | None = None

    @nn.compact
    def __call__(
        self, x_BTD: Array, cache: Tree, shared: Shared
    ) -> tuple[jax.Array, tuple[Any, dict[str, Any]]]:
        """The residual stream after the layer, its cache, and what the taps gathered."""
        config, gathered = self.config, {}
        x = checkpoint_name(ops.constrain_rows(x_BTD, self.batch_sharding), LAYER_INPUT)

        def tap(site, value):
            if site in self.taps:
                gathered[site] = self.taps[site](value, shared.mask)

        attention_norm = Norm(config, name="attention_norm")
        mlp_norm = Norm(config, name="mlp_norm")
        attention = _rematerialized(Attention, self.compute, "attention")(
            config,
            self.compute,
            self.taps.get("attention.probabilities"),
            self.batch_sharding,
            name="attention",
        )
        mlp = _rematerialized(MLP, self.compute, "mlp")(
            config, self.taps.get("mlp.coefficients"), name="mlp"
        )

        # Pre-norm reads a normed residual; OLMo 2 norms what a sublayer writes.
        before = config.norm_place == "input"
        y, cache, probabilities = attention(attention_norm(x) if before else x, cache, shared)
        if probabilities is not None:
            gathered["attention.probabilities"] = probabilities
        y = y if before else attention_norm(y)
        tap("attention.output", y)

        # In parallel (GPT-NeoX), the MLP reads the residual without what attention wrote.
        if not config.parallel:
            x = x + y
        z, coefficients = mlp(mlp_norm(x) if before else x, shared.mask)
        if coefficients is not None:
            gathered["mlp.coefficients"] = coefficients
        z = z if before else mlp_norm(z)
        tap("mlp.output", z)
        x = x + y + z if config.parallel else x + z
        tap("residual", x)
        return ops.constrain_rows(x, self.batch_sharding), (cache, gathered)


class LanguageModel(nn.Module):
    """A decoder language model: tokens to final states.

    The head reads them (`lmdyn.models.heads`).

    Attributes:
      config: the architecture.
      compute: how it is run.
      taps: reducers by site, see `lmdyn.models.forward.forward`.
      batch_sharding: how the rows of a batch are sharded over a mesh; activations are held there
        (`lmdyn.training.sharding.spread`).

    >>> from lmdyn.models.config import ModelConfig
    >>> config = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> variables = LanguageModel(config).init(jax.random.key(0), jnp.zeros([1, 4], jnp.int32))
    >>> variables["params"]["blocks"]["mlp"]["up"]["kernel"].shape
    (2, 6, 10)
    """

    config: ModelConfig
    compute: Compute = Compute()
    taps: Mapping[str, Callable] = dataclasses.field(default_factory=FrozenDict)
    batch_sharding: jax.sharding.NamedSharding | None = None

    if TYPE_CHECKING:  # Flax gives its modules a hash that checkers do not see

        def __hash__(self) -> int: ...

    def setup(self) -> None:
        """Makes the submodules; Flax calls it."""
        config, compute = self.config, self.compute.resolved()
        std = _std(config, False)
        self.embed = Embed(config.vocab, config.width, std, self.batch_sharding)
        if config.position == "learned":
            self.positions = Embed(config.positions, config.width, std, self.batch_sharding)
        self.blocks = nn.scan(
            _rematerialized(Block, compute, "dots", "full", "offload"),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=cast(Any, (0, nn.broadcast)),
            length=config.depth,
            unroll=min(compute.unroll, config.depth),
        )(config, compute, self.taps, self.batch_sharding)
        self.final_norm = Norm(config)
        if not config.tied_head:
            self.head = OutputHead(config, std)

    def embedded(self, tokens: Array, positions: Array) -> jax.Array:
        """`[B, T]` tokens and positions to `[B, T, D]`, in the compute dtype."""
        x = self.embed(tokens)
        if self.config.position == "learned":
            x = x + self.positions(positions)
        return ops.constrain_rows(x.astype(self.compute.resolved().dtype), self.batch_sharding)

    def run(self, x: Array, cache: Tree, shared: Shared) -> Any:
        """Through the blocks: `[B, T, D]`, the new cache and the tapped, both `[L, ...]`."""
        x, (cache, gathered) = self.blocks(x, cache, shared)
        return x, cache, gathered

    def finish(self, x: Array) -> jax.Array:
        """The final norm: what the head reads."""
        return ops.constrain_rows(self.final_norm(x), self.batch_sharding)

    def __call__(self, tokens: Array) -> jax.Array:
        """Final states `[B, T, D]` of `[B, T]` tokens, without taps or cache; `init` runs this."""
        positions = jnp.arange(tokens.shape[1])[None]
        x = self.embedded(tokens, positions)
        angles = rotary.angles(self.config, positions) if self.config.position == "rotary" else None
        x, _, _ = self.run(x, None, Shared(jnp.ones(tokens.shape, bool), angles, angles))
        x = self.finish(x)
        if not self.config.tied_head:
            self.head()
        return x


class OutputHead(nn.Module):
    """The head's parameters; `lmdyn.models.heads` computes with them. Part of `LanguageModel`."""

    config: ModelConfig
    std: float

    @nn.compact
    def __call__(self) -> None:
        """Makes them."""
        head = head_of(self.config)
        for name, shape in head.shapes.items():
            # What only widens or narrows keeps the size of states; what gives scores or weights
            # begins near 0.
            std = self.std if name in head.scoring else shape[0] ** -0.5
            if name == "kernel":  # a full head's, which is stored there directly
                _matrix(self, name, std, shape)
            else:
                HeadMatrix(shape, std, name=name)()


class HeadMatrix(nn.Module):
    """One of several matrices of a head. Part of `LanguageModel`."""

    shape: tuple[int, int]
    std: float

    @nn.compact
    def __call__(self) -> Any:
        """The matrix."""
        return _matrix(self, "kernel", self.std, self.shape)
