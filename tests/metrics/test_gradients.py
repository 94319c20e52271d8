"""Gradient norms of single sequences: PyTorch one at a time, batches and padding, memory, packed
weights, bad input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn import metrics, models
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError
from lmdyn.models.matrices import stored
from lmdyn.models.matrices.quantized import from_bytes
from lmdyn.params import GROUPS, flatten, select, unflatten
from tests.checkpoints.cases import CASES, random_model
from tests.helpers import assert_close, small

LENGTHS, LENGTH = (11, 7, 9, 11), 11
SPANS = ((10,), (2, 3, 4), (1, 7), range(11))  # one token, several, apart from each other, all
MEASURED = (
    *GROUPS,
    "blocks.attention.key",
    "blocks[1:].mlp.down+blocks[0].attention.query",
    "blocks[2]",
    "all",
)


def probes(lengths=LENGTHS, spans=SPANS) -> ProbeBatch:
    """Probes of few different tokens, so that some occur again in a sequence; padded with tokens
    that must not matter.
    """
    rng = np.random.default_rng(5)
    inputs, targets = rng.integers(0, 6, (2, len(lengths), max(lengths))).astype(np.int32)
    span = np.zeros(inputs.shape, bool)
    for row, places in enumerate(spans):
        span[row, list(places)] = True
    return ProbeBatch(inputs, targets, span, np.arange(max(lengths)) < np.array(lengths)[:, None])


@functools.cache
def compiled(model, groups=None, most=None):
    return jax.jit(
        lambda params, *batch: metrics.gradient_norms(model, params, *batch, groups, most=most)
    )


def norms_by_torch(theirs, batch: ProbeBatch, folder):
    """For every sequence, run alone and without its padding: `{path: [L] or [] squared norms}`, in
    the names of our parameters.
    """
    torch = pytest.importorskip("torch")
    for row, length in enumerate(batch.mask.sum(1)):
        inputs, targets = (
            torch.tensor(ids[row : row + 1, :length].astype(np.int64))
            for ids in (batch.inputs, batch.targets)
        )
        span = torch.tensor(batch.span[row, :length])
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(
            theirs(inputs).logits[0][span], targets[0][span]
        ).backward()
        kept = {name: parameter.detach().clone() for name, parameter in theirs.named_parameters()}
        for parameter in theirs.parameters():
            parameter.data = parameter.grad.detach().clone()
        theirs.save_pretrained(folder)  # the gradient, as if it were a checkpoint
        for name, parameter in theirs.named_parameters():
            parameter.data = kept[name]
        gradient = flatten(read_folder(folder).params)
        axes = lambda path, leaf: tuple(range(path[0] == "blocks", leaf.ndim))
        yield {
            path: np.sum(np.square(np.asarray(leaf, np.float64)), axes(path, leaf))
            for path, leaf in gradient.items()
        }


@pytest.mark.parametrize("name", ["gpt2", "neox", "llama", "olmo2", "qwen3-biased"])
def test_norms_are_those_of_torch_one_sequence_at_a_time(name, tmp_path):
    theirs = random_model(CASES[name].family, {**CASES[name].options, "pad_token_id": None})
    theirs.save_pretrained(tmp_path / "model")
    config, params = read_folder(tmp_path / "model")
    batch = probes()
    groups = [group for group in MEASURED if GROUPS.get(group) != group or group in params]
    model = models.LanguageModel(config, models.Compute(dtype="float32"))
    found = compiled(model, tuple(groups))(params, batch.inputs, batch.targets, batch.span)
    wanted = {group: [] for group in groups}
    for squares in norms_by_torch(theirs, batch, tmp_path / "gradient"):
        for group in groups:
            chosen = select(params, GROUPS.get(group, group))
            if all(layers for layers in chosen.values()):
                layers = sorted(set().union(*chosen.values()))
                wanted[group].append(
                    [
                        sum(squares[path][layer] for path in chosen if layer in chosen[path])
                        for layer in layers
                    ]
                )
            else:
                wanted[group].append(sum(np.sum(squares[path]) for path in chosen))
    for group in groups:
        np.testing.assert_allclose(found[group], np.sqrt(wanted[group]).T, rtol=2e-5, err_msg=group)


def test_batches_give_what_each_sequence_gives_alone():
    model, params = small("gated")
    batch = probes((11, 7, 11, 7, 11), (*SPANS[:3], (2,), range(11)))
    together = metrics.layer_gradients(model, params, batch, batch=3)
    assert together.tokens.tolist() == [1, 3, 2, 1, 11]
    some = together.of(np.array([False, True, False, False, True]))
    assert some.tokens.tolist() == [3, 11] and len(some.losses) == 2
    np.testing.assert_array_equal(some.norms["mlp"], together.norms["mlp"][:, [1, 4]])
    np.testing.assert_array_equal(some.norms["head"], together.norms["head"][[1, 4]])
    assert together.norms["mlp"].shape == (3, 5) and together.norms["mlp"].dtype == np.float64
    for row, length in enumerate(batch.mask.sum(1)):
        alone = [part[row : row + 1, :length] for part in batch[:3]]
        for group, norms in compiled(model)(params, *alone).items():
            np.testing.assert_allclose(
                together.norms[group][..., row], norms[..., 0], rtol=1e-5, err_msg=group
            )
    np.testing.assert_allclose(
        together.losses, -metrics.score_probes(model, params, batch).log_probability, rtol=1e-5
    )
    rows = {(row["site"], row["layer"]): row["value"] for row in together.rows()}
    assert rows["attention", 2] == pytest.approx(together.norms["attention"][2].mean())
    assert rows["head", None] == pytest.approx(together.norms["head"].mean())
    assert len(rows) == 3 * 3 + 3

    nothing = compiled(model)(params, *alone[:2], np.zeros_like(alone[2]))
    assert not any(norms.any() for norms in nothing.values())


def test_the_head_in_blocks_of_sequences_is_the_whole(monkeypatch):
    model, params = small("learned")
    batch = probes()
    args = (params, batch.inputs, batch.targets, batch.span)
    wanted = compiled(model)(*args)
    monkeypatch.setattr(
        models.tiles, "TILE_BYTES", 3 * 4 * 11 * 61
    )  # three sequences, and then one
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), compiled(model, most=11)(*args), wanted)


@pytest.mark.parametrize("tokens, by_pairs", [(9, True), (40, False)])
def test_a_watched_matrix_gives_the_norm_of_its_gradient(tokens, by_pairs):
    """Both ways, by the definition in float64; nothing of the gradient's shape where pairs of
    tokens are cheaper.
    """
    rng = np.random.default_rng(2)
    x, d_y = (
        rng.normal(size=(tokens, 30)).astype(np.float32),
        rng.normal(size=(tokens, 70)).astype(np.float32),
    )
    matrix = jnp.asarray(rng.normal(size=(30, 70)), jnp.float32)
    run = jax.jit(
        jax.grad(
            lambda square, x: jnp.sum(
                models.matrices.grad_norm.product(x, models.GradNormProbe(matrix, square)) * d_y
            ),
            (0, 1),
        )
    )
    square, d_x = run(0.0, x)
    np.testing.assert_allclose(square, np.sum(np.square(x.astype(np.float64).T @ d_y)), rtol=1e-5)
    assert_close(d_x, d_y.astype(np.float64) @ np.asarray(matrix, np.float64).T, 1e-5)
    text = (
        jax.jit(
            jax.grad(
                lambda s, x: jnp.sum(
                    models.matrices.grad_norm.product(x, models.GradNormProbe(matrix, s)) * d_y
                )
            )
        )
        .lower(0.0, x)
        .as_text()
    )
    assert (f"{tokens}x{tokens}x" in text) == by_pairs


def test_memory_is_that_of_activations_and_a_layer():
    """Every sequence's gradient of all layers would take 145 MB, activations take some 15."""
    config = models.ModelConfig(
        vocab=61, width=64, depth=24, heads=4, head_width=16, mlp_width=160, positions=16
    )
    model, sequences, length = models.LanguageModel(config), 32, 5
    ids = jax.ShapeDtypeStruct((sequences, length), jnp.int32)
    span = jax.ShapeDtypeStruct((sequences, length), bool)
    run = jax.jit(lambda *args: metrics.gradient_norms(model, *args))
    program = run.lower(models.shapes(config), ids, ids, span).compile()
    used = program.memory_analysis().temp_size_in_bytes
    layer = 4 * sequences * (4 * 64 * 64 + 3 * 64 * 160)  # the gradients of one layer
    activations = (
        4 * sequences * length * 24 * (12 * 64 + 4 * 160)
    )  # ten a sublayer's width, and queries, keys, values
    assert used < activations < 4 * layer


def test_quantised_weights_are_measured_as_they_are():
    config = models.ModelConfig(
        vocab=61, width=32, depth=2, heads=2, head_width=16, mlp_width=64, positions=16
    )
    model = models.LanguageModel(config)
    params = flatten(models.init(model))
    rng = np.random.default_rng(1)
    quantised, plain = dict(params), dict(params)
    for path, leaf in params.items():
        if path[-1] == "kernel" or path[0] == "embed":
            out, inner = (leaf.shape[-1], leaf.shape[-2]) if path[-1] == "kernel" else leaf.shape
            rows = rng.integers(0, 256, (*leaf.shape[:-2], out, inner // 32, 34), np.uint8)
            rows[..., :2] = np.array([2e-3], np.float16).view(np.uint8)
            quantised[path] = from_bytes(rows.reshape(*leaf.shape[:-2], out, -1), "Q8_0")
            dense = np.asarray(stored(quantised[path])[0])
            plain[path] = dense.swapaxes(-1, -2) if path[-1] == "kernel" else dense
    batch = probes()
    args = (batch.inputs, batch.targets, batch.span)
    found, wanted = (compiled(model)(unflatten(tree), *args) for tree in (quantised, plain))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), found, wanted)


def test_bad_input_says_what_to_mend():
    model, params = small("gated")
    batch = probes()
    run = functools.partial(metrics.layer_gradients, model, params)
    with pytest.raises(InputError, match="no probes"):
        run(ProbeBatch(*(part[:0] for part in batch)))
    with pytest.raises(InputError, match="probe 2 of 4 has no token in its span"):
        run(batch._replace(span=batch.span * np.array([[True], [True], [False], [True]])))
    with pytest.raises(InputError, match="batch=0"):
        run(batch, batch=0)
    with pytest.raises(InputError, match="'blocks' holds attention"):
        run(batch, groups=["blocks.mpl"])
    with pytest.raises(InputError, match="61"):
        run(batch._replace(inputs=batch.inputs + 61))
