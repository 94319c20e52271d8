"""Scores of probes: against `transformers`, one at a time, and whatever way they are grouped."""

import types

import jax
import numpy as np
import pytest

from lmdyn import metrics, models
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError
from lmdyn.metrics import probe_scores
from lmdyn.models import heads, tiles
from tests.checkpoints.cases import VOCAB, random_model
from tests.helpers import assert_close

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "llama": {
        **COMMON,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 37,
    },
    "gpt_neox": {
        **COMMON,
        "num_attention_heads": 3,
        "intermediate_size": 35,
        "tie_word_embeddings": True,
    },
}
LENGTHS, SPANS = (
    (13, 5, 9, 2, 13, 7, 11),
    ((2, 5), (1, 2), (7, 9), (1, 2), (12, 13), (3, 7), (1, 4)),
)
"""Tokens of each probe's text, and which of them are its span."""


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    """A random model; probes, of which several are what it would write itself; and their scores by
    `transformers`.
    """
    torch = pytest.importorskip("torch")
    theirs = random_model(request.param, FAMILIES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    config, params = read_folder(folder)
    model = models.LanguageModel(config, models.Compute(dtype="float32"))

    rng, shape = np.random.default_rng(0), (len(LENGTHS), max(LENGTHS) - 1)
    inputs, targets, span, mask = (
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, bool),
        np.zeros(shape, bool),
    )
    wanted = []
    for row, (length, (start, end)) in enumerate(zip(LENGTHS, SPANS, strict=True)):
        ids = torch.tensor(rng.integers(0, VOCAB, length))
        for place in range(start, end):
            if row % 2:  # the model's own continuation, but in one probe for the last token
                ids[place] = theirs(ids[None, :place]).logits[0, -1].argmax()
        if row == 5:
            ids[end - 1] = (ids[end - 1] + 1) % VOCAB
        log_p = (
            theirs(ids[None])
            .logits[0]
            .double()
            .log_softmax(-1)[range(start - 1, end - 1), ids[start:end]]
        )
        wanted.append((log_p.mean().item(), row % 2 == 1 and row != 5))
        inputs[row, : length - 1], targets[row, : length - 1] = ids[:-1], ids[1:]
        span[row, start - 1 : end - 1], mask[row, : length - 1] = True, True
    log_p, exact = map(np.array, zip(*wanted, strict=True))
    return types.SimpleNamespace(
        model=model,
        params=params,
        batch=ProbeBatch(inputs, targets, span, mask),
        log_probability=log_p,
        exact=exact,
    )


@pytest.mark.parametrize("rows", [64, 3])
def test_scores_agree_with_transformers(case, rows):
    found = metrics.score_probes(case.model, case.params, case.batch, rows=rows)
    assert_close(found.log_probability, case.log_probability, 1e-5)
    assert (
        found.exact.tolist()
        == case.exact.tolist()
        == [False, True, False, True, False, False, False]
    )
    assert found.log_probability.dtype == np.float64 and found.exact.dtype == bool


def test_both_ways_to_score_a_span_agree(case):
    found = metrics.score_probes(case.model, case.params, case.batch).log_probability
    whole = jax.jit(metrics.span_log_probability, static_argnums=0)(
        case.model, case.params, case.batch.inputs, case.batch.targets, case.batch.span
    )
    assert_close(found, whole, 1e-6)


def test_a_set_of_probes_is_compiled_once_and_the_head_sees_spans_only(case, monkeypatch):
    seen, score = [], heads.Head.token_scores
    scored = lambda head, matrices, states, *rest: (
        seen.append(states.shape) or score(head, matrices, states, *rest)
    )
    monkeypatch.setattr(heads.Head, "token_scores", scored)
    probe_scores._step.cache_clear()
    for _ in range(2):  # 7 probes in 3 groups of 3, twice
        metrics.score_probes(case.model, case.params, case.batch, rows=3)
    assert seen == [(3 * 4, 24)]  # traced once; the longest span has 4 tokens
    probe_scores._step.cache_clear()


def test_blocks_of_the_head_change_nothing(case, monkeypatch):
    whole = metrics.score_probes(case.model, case.params, case.batch)
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * VOCAB * 5)
    probe_scores._step.cache_clear()
    found = metrics.score_probes(case.model, case.params, case.batch)
    probe_scores._step.cache_clear()
    assert_close(found.log_probability, whole.log_probability, 1e-6)
    assert found.exact.tolist() == whole.exact.tolist()


def test_devices_share_the_probes(case):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shared = jax.device_put(
        case.params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    )
    found = metrics.score_probes(case.model.clone(batch_sharding=rows), shared, case.batch, rows=5)
    assert mesh.size == 8
    assert_close(found.log_probability, case.log_probability, 1e-5)
    assert found.exact.tolist() == case.exact.tolist()


def test_bad_probes_are_named(case):
    score = lambda rows=64, **changes: metrics.score_probes(
        case.model, case.params, case.batch._replace(**changes), rows=rows
    )
    with pytest.raises(InputError, match="rows=0"):
        score(rows=0)
    with pytest.raises(InputError, match="no probes to score"):
        metrics.score_probes(
            case.model, case.params, ProbeBatch(*(array[:0] for array in case.batch))
        )
    with pytest.raises(InputError, match="probe 3 of 7 has no span"):
        score(span=case.batch.span & (np.arange(7) != 3)[:, None])
    with pytest.raises(
        InputError, match="token id 61 at position 2 is outside the vocabulary of 61"
    ):
        score(inputs=np.where(np.arange(12) == 2, 61, case.batch.inputs).astype(np.int32))
