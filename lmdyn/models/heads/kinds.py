"""Output heads of several kinds, as pure functions of final states: what the softmax bottleneck's
literature offers.

    init                (key) -> params
    log_probabilities   (params, states [n, D]) -> [n, V] float32

A full head, `log_softmax(x W)`, has logits of rank D at most, however large V is. The others have
less (`low_rank`) or more: a mixture of softmaxes (Yang et al. 2018, arXiv 1711.03953), sigsoftmax
(Kanai et al. 2018, arXiv 1805.10829), a wider projection (`projected`). All of them train on any
model's final states with one loss, `weighted_nll`, which never holds all log-probabilities: on a
frozen body (`lmdyn.training.head_fits`), or jointly, as the head of a model whose config names it
(`ModelConfig(head="mixture:4")`).

Shape letters: n tokens, D width, V vocabulary, R rank, K components, P projected width.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.errors import InputError
from lmdyn.models import loss as heads
from lmdyn.models.config import ModelConfig, parse_head
from lmdyn.types import Array, Tree


@dataclasses.dataclass(frozen=True)
class Head:
    """An output head; made by the functions below, which return the same object for the same
    arguments.

    Attributes:
      init: `(jax.random.key) -> params`, a dict of float32 matrices, normal with variance 1 / rows.
      log_probabilities: `(params, states [n, D]) -> [n, V]` float32.
      vocab: V.
      copies: how many arrays `[n, V]` it holds at once, for the size of blocks.
    """

    init: Callable[[jax.Array], dict]
    log_probabilities: Callable[[dict, jax.Array], jax.Array]
    vocab: int
    copies: int = 1

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return sum(
            leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        )


def _matrices(**shapes):
    """An `init` for matrices of these shapes."""

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: jax.random.normal(k, shape) * shape[0] ** -0.5
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return init


def _scores(states, kernel):
    return heads.scores(states, kernel, tied=False)


@functools.cache
def full(width: int, vocab: int) -> Head:
    """`log_softmax(x W)`, W `[D, V]`: the head that language models have.

    >>> full(6, 11).size, full(6, 11) is full(6, 11)
    (66, True)
    """
    return Head(
        _matrices(kernel=(width, vocab)),
        lambda params, x: jax.nn.log_softmax(_scores(x, params["kernel"])),
        vocab,
    )


@functools.cache
def low_rank(width: int, vocab: int, rank: int) -> Head:
    """`log_softmax(x A B)`, A `[D, R]`, B `[R, V]` (Godey et al. 2024, section 5.3).

    Raises:
      InputError: a rank above D or V, which a product of two matrices does not have.

    >>> low_rank(6, 11, rank=2).size
    34
    """
    if not 1 <= rank <= min(width, vocab):
        raise InputError(f"rank={rank} of a head [{width}, {vocab}]; use 1 to {min(width, vocab)}")
    scores = lambda params, x: _scores(_scores(x, params["down"]).astype(x.dtype), params["up"])
    return Head(
        _matrices(down=(width, rank), up=(rank, vocab)),
        lambda params, x: jax.nn.log_softmax(scores(params, x)),
        vocab,
    )


@functools.cache
def mixture(width: int, vocab: int, components: int) -> Head:
    """`log sum_k pi_k(x) softmax(tanh(x U_k) W)`, pi = softmax(x P): a mixture of softmaxes (Yang
    et al. 2018, equation 6).

    The components share W `[D, V]`; a context has U_k `[D, D]` and P `[D, K]` of its own.

    >>> mixture(6, 11, components=3).size  # 6 * 11 + 3 * 6 * 6 + 6 * 3
    192
    """
    if components < 1:
        raise InputError(f"components={components}; a mixture needs 1 or more")

    def log_probabilities(params, x):
        latent = jnp.tanh(_scores(x, params["latent"])).astype(x.dtype).reshape(-1, width)
        each = jax.nn.log_softmax(_scores(latent, params["kernel"])).reshape(
            len(x), components, vocab
        )
        prior = jax.nn.log_softmax(_scores(x, params["prior"]))
        return jax.nn.logsumexp(each + prior[..., None], 1)

    shapes = {
        "latent": (width, components * width),
        "prior": (width, components),
        "kernel": (width, vocab),
    }
    return Head(_matrices(**shapes), log_probabilities, vocab, copies=components + 1)


@functools.cache
def sigsoftmax(width: int, vocab: int) -> Head:
    """`p_i` proportional to `exp(z_i) sigmoid(z_i)`, z = x W: no more parameters than the full head
    (Kanai et al. 2018, equation 12).
    """

    def log_probabilities(params, x):
        z = _scores(x, params["kernel"])
        return jax.nn.log_softmax(z + jax.nn.log_sigmoid(z))

    return Head(_matrices(kernel=(width, vocab)), log_probabilities, vocab, copies=2)


@functools.cache
def projected(width: int, vocab: int, wide: int) -> Head:
    """`log_softmax(gelu(x U) W)`, U `[D, P]`, W `[P, V]`: logits of rank up to P. Without the
    nonlinearity they would keep rank D.
    """
    if wide < 1:
        raise InputError(f"wide={wide}; a projected head needs a width of 1 or more")
    scores = lambda params, x: _scores(
        jax.nn.gelu(_scores(x, params["wide"])).astype(x.dtype), params["kernel"]
    )
    return Head(
        _matrices(wide=(width, wide), kernel=(wide, vocab)),
        lambda params, x: jax.nn.log_softmax(scores(params, x)),
        vocab,
    )


def _nll(head, params, states, targets):
    return -jnp.take_along_axis(head.log_probabilities(params, states), targets[:, None], -1)[:, 0]


def _rows(head, states):
    return heads._block_rows(states.shape[0], head.vocab * head.copies)


def token_nll(head: Head, params: Tree, states: Array, targets: Array) -> jax.Array:
    """Nll `[N]` in nats of states `[N, D]`, block by block."""
    block = lambda carry, rows: (carry, _nll(head, params, *rows))
    return heads._in_blocks(block, None, (states, targets), _rows(head, states))[1]


def token_scores(
    head: Head, params: Tree, states: Array, targets: Array
) -> tuple[jax.Array, jax.Array]:
    """Nll `[N]` in nats, and `[N]` booleans: whether the target is the most likely token; like
    `heads.token_scores`.
    """

    def block(carry, rows):
        x, target = rows
        log_p = head.log_probabilities(params, x)
        return carry, (
            -jnp.take_along_axis(log_p, target[:, None], -1)[:, 0],
            jnp.argmax(log_p, -1) == target,
        )

    return heads._in_blocks(block, None, (states, targets), _rows(head, states))[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_nll(
    head: Head, params: Tree, states: Array, targets: Array, weights: Array
) -> tuple[jax.Array, jax.Array]:
    """`sum_i weights_i nll_i`, and every nll; like `heads.weighted_nll`, for a head of any kind.

    The gradient is made in the forward pass, block by block, so that memory is that of one block's
    log-probabilities. The nll per token is for reporting: no gradient flows through it.

    Args:
      head: from this module.
      params: as `head.init` makes them.
      states: `[N, D]`. targets: `[N]` integers. weights: `[N]` float32; 0 leaves a token out.

    Returns:
      A float32 scalar in nats, and `[N]` float32 nats.

    >>> head = full(3, 4)
    >>> total, nll = weighted_nll(
    ...     head,
    ...     {"kernel": jnp.ones([3, 4])},
    ...     jnp.ones([2, 3]),
    ...     jnp.array([0, 1]),
    ...     jnp.ones(2) / 2,
    ... )
    >>> round(float(total), 4), nll.shape  # log 4
    (1.3863, (2,))
    """

    def block(total, rows):
        x, target, weight = rows
        nll = _nll(head, params, x, target)
        return total + jnp.sum(nll * weight), nll

    return heads._in_blocks(block, jnp.float32(0), (states, targets, weights), _rows(head, states))


def _weighted_nll_forward(head, params, states, targets, weights):
    def block(carry, rows):
        x, target, weight = rows

        def objective(params, x):
            nll = _nll(head, params, x, target)
            return jnp.sum(nll * weight), nll

        (part, nll), (d_params, d_x) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            params, x
        )
        total, grown = carry
        return (total + part, jax.tree.map(jnp.add, grown, d_params)), (nll, d_x)

    start = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)
    (total, d_params), (nll, d_states) = heads._in_blocks(
        block, start, (states, targets, weights), _rows(head, states)
    )
    return (total, nll), (d_params, d_states)


def _weighted_nll_backward(head, saved, cotangents):
    scale, _ = cotangents
    d_params, d_states = jax.tree.map(lambda d: d * scale.astype(d.dtype), saved)
    return d_params, d_states, None, None


weighted_nll.defvjp(_weighted_nll_forward, _weighted_nll_backward)


def of(config: ModelConfig) -> Head | None:
    """The head that a model's config names; None for the full one, which `lmdyn.models.loss`
    computes.

    >>> of(
    ...     ModelConfig(
    ...         vocab=11,
    ...         width=6,
    ...         depth=2,
    ...         heads=3,
    ...         head_width=2,
    ...         mlp_width=10,
    ...         positions=16,
    ...         head="low_rank:2",
    ...     )
    ... ).size
    34
    """
    return None if config.head == "full" else named(config.head, config.width, config.vocab)


def named(text: str, width: int, vocab: int) -> Head:
    """A head by name: `full`, `low_rank:R`, `mixture:K`, `sigsoftmax`, `projected:P`.

    Raises:
      InputError: another name, or a size that the kind cannot have.

    >>> named("mixture:3", 6, 11) is mixture(6, 11, 3)
    True
    """
    kind, size = parse_head(text)
    make = {
        "full": full,
        "low_rank": low_rank,
        "mixture": mixture,
        "sigsoftmax": sigsoftmax,
        "projected": projected,
    }[kind]
    return make(width, vocab, size) if size else make(width, vocab)


def matrices(head: Head) -> dict[str, tuple[int, int]]:
    """Shapes of a head's matrices, by the name that they have in `params["head"]` of a model: what
    gives scores is `output`.

    >>> matrices(low_rank(6, 11, rank=2))
    {'down': (6, 2), 'output': (2, 11)}
    """
    shapes = jax.eval_shape(head.init, jax.random.key(0))
    return {_nested(name): leaf.shape for name, leaf in shapes.items()}


def _nested(name: str) -> str:
    return "output" if name in ("kernel", "up") else name


def flat(head: Head, params: Tree) -> dict:
    """What the functions above take, of a model's parameters: `params["head"]` is `{"output":
    {"kernel": ...}, ...}`.
    """
    names = jax.eval_shape(head.init, jax.random.key(0))
    return {name: params["head"][_nested(name)]["kernel"] for name in names}


def kernel_of(params: Tree) -> jax.Array:
    """The head of a language model's parameters as `[D, V]`, tied or not."""
    head, tied = heads.matrix(params)
    return head.T if tied else head


def truncated(kernel: Array, ranks: Iterable[int]) -> dict[int, dict]:
    """The best approximations of a head, for `low_rank`: its truncated singular value
    decomposition.

    Args:
      kernel: `[D, V]`, see `kernel_of`.
      ranks: which.

    Returns:
      `{rank: {"down": [D, R], "up": [R, V]}}`; at rank D the product is the head itself.

    >>> {
    ...     rank: (p["down"] @ p["up"]).round(4).tolist()
    ...     for rank, p in truncated([[2.0, 0.0], [0.0, 1.0]], [1, 2]).items()
    ... }
    {1: [[2.0, 0.0], [0.0, 0.0]], 2: [[2.0, 0.0], [0.0, 1.0]]}
    """
    kernel = np.asarray(kernel, np.float64)
    _, directions = np.linalg.eigh(kernel @ kernel.T)  # left singular vectors, largest last
    directions = directions[:, ::-1]
    share = (directions.T @ kernel).astype(np.float32)
    return {
        rank: {"down": directions[:, :rank].astype(np.float32), "up": share[:rank]}
        for rank in ranks
    }
