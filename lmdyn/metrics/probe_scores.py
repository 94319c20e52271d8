"""How well a model knows the spans of probes.

Their log-probability, and whether greedy decoding would write them.

`likelihood.span_log_probability` is the same number for one batch inside a program of one's own.
Here the head is computed for the tokens of the spans only, which are a few of a probe's many: a
large vocabulary costs little.

Shape letters: P probes, T tokens, R rows of a group, S tokens of a span (padded), D width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.data import ProbeBatch, check_tokens
from lmdyn.errors import InputError
from lmdyn.models import ops
from lmdyn.models.forward import forward
from lmdyn.models.heads import head_of
from lmdyn.models.modules import LanguageModel
from lmdyn.types import Params


class SpanScores(NamedTuple):
    """How likely a model finds P spans, given the text before them. Made by `score_probes`."""

    log_probability: np.ndarray
    """[P] float64 nats: mean log p over the tokens of the span (Chang et al. 2024, `l(q)`)"""
    exact: np.ndarray
    """[P] bool: greedy decoding would write the span, as each of its tokens is the most likely"""


@functools.lru_cache(maxsize=16)
def _step(model):
    """The jitted `(params, inputs [R, T], places [R, S], targets [R, S]) -> (nll, best) [R, S]`."""

    @jax.jit
    def step(params, inputs, places, targets):
        states = forward(model, params, inputs).states
        asked = jnp.take_along_axis(states, places[:, :, None], 1)
        head = head_of(model.config)
        found = head.token_scores(
            head.matrices(params),
            asked.reshape(-1, asked.shape[-1]),
            targets.reshape(-1),
            model.batch_sharding,
        )
        return jax.tree.map(lambda out: out.reshape(targets.shape), found)

    return step


def score_probes(
    model: LanguageModel, params: Params, batch: ProbeBatch, *, rows: int = 64, span: int = 1
) -> SpanScores:
    """Scores every probe's span, given all before it.

    One compilation serves a model and a shape of batch.

    Probes are padded at their end, which causal attention never looks at from a span, so the mask
    is not needed.

    Args:
      model: as `lmdyn.load` returns it.
      params: its parameters, used where they are.
      batch: from `lmdyn.data.encode_probes`.
      rows: how many probes go through the model at once, at most; groups are of one size, the last
        one padded.
      span: spans are padded to at least this many tokens, so that batches share a program.

    Raises:
      InputError: rows below 1, no probes, one without a span, or a token outside the model's
        vocabulary.

    >>> from lmdyn import data, models
    >>> model = models.LanguageModel(
    ...     models.ModelConfig(
    ...         vocab=256, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=32
    ...     )
    ... )
    >>> batch = data.encode_probes(
    ...     [data.Probe("2 + 2 = 4", 8, 9)] * 3, data.tokenizers.byte_tokenizer()
    ... )
    >>> found = score_probes(model, models.init(model), batch, rows=2)
    >>> found.log_probability.shape, found.exact.tolist()
    ((3,), [False, False, False])
    """
    if rows < 1:
        raise InputError(f"rows={rows}; it must be at least 1")
    counts = batch.span.sum(1)
    if not len(counts):
        raise InputError("there are no probes to score; give at least one")
    if not counts.all():
        raise InputError(
            f"probe {int(counts.argmin())} of {len(counts)} has no span; encode_probes marks at"
            " least one token"
        )
    for ids in (batch.inputs, batch.targets):
        check_tokens(ids, model.config.vocab)

    # places [P, S]: where each span's predictions are, first to last; `inside` marks the real ones.
    size = min(max(span, counts.max()), batch.span.shape[1])
    inside = np.arange(size) < counts[:, None]
    places = np.where(inside, np.argsort(~batch.span, 1, kind="stable")[:, :size], 0).astype(
        np.int32
    )
    targets = np.take_along_axis(batch.targets, places, 1)

    groups = -(-len(counts) // rows)
    runs = ops.runs(model.batch_sharding)  # devices share a group's rows evenly
    rows = runs * -(-len(counts) // (groups * runs))
    # Groups of one shape; only the span's final states meet the head.
    step, found = _step(model), []
    for first in range(0, len(counts), rows):
        group = [array[first : first + rows] for array in (batch.inputs, places, targets)]
        group = [np.pad(array, [(0, rows - len(array)), (0, 0)]) for array in group]
        found.append(step(params, *group))
    nll, best = (
        np.concatenate(parts)[: len(counts)] for parts in zip(*jax.device_get(found), strict=True)
    )
    mean = np.where(inside, nll, 0).sum(1, dtype=np.float64) / counts
    return SpanScores(-mean, (best | ~inside).all(1))
