"""The RMS rule with decay to the prior learns online as it does in PyTorch, from statistics that
PyTorch finds too.
"""

import functools

import jax
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F

from lmdyn import transforms
from lmdyn.data import Batch
from lmdyn.errors import InputError
from lmdyn.params import partition
from tests.helpers import assert_close, small, tokens
from tests.online import reference
from tests.online.helpers import evaluate

CHUNK, EPS, RATE, DECAY = 7, 0.02, 0.002, 0.3
TEXT = tokens(20 * CHUNK + 1)


@functools.cache
def statistics():
    model, params = small()
    stream = tokens(4 * 2 * CHUNK + 1, seed=9)
    rows = lambda a: a.reshape(4, 2, CHUNK)
    batches = [
        Batch(*pair, np.ones([2, CHUNK], bool))
        for pair in zip(rows(stream[:-1]), rows(stream[1:]), strict=True)
    ]
    return transforms.gradient_rms(model, params, batches), batches


@functools.cache
def theirs():
    """The decoder, m by parameter, and the mean over parameters of the mean of m."""
    model, square = reference.llama(), {}
    for batch in statistics()[1]:
        model.zero_grad(set_to_none=True)
        logits = model(torch.tensor(batch.inputs, dtype=torch.int64)).logits
        F.cross_entropy(
            logits.flatten(0, 1), torch.tensor(batch.targets, dtype=torch.int64).flatten()
        ).backward()
        for name, p in model.named_parameters():
            square[name] = square.get(name, 0) + p.grad**2
    m = {name: (s / len(statistics()[1])).sqrt() for name, s in square.items()}
    return model, m, torch.stack([part.mean() for part in m.values()]).mean().item()


def test_statistics_are_those_of_pytorch():
    found = statistics()[0]
    _, m, mean = theirs()
    assert abs(found.mean / mean - 1) < 1e-4
    assert found.batches == 4
    for layer in range(3):
        for group in ("attention", "mlp"):
            for name, leaf in found.rms["blocks"][group].items():
                assert_close(
                    leaf["kernel"][layer],
                    m[f"model.layers.{layer}.{reference.NAMES[name]}.weight"].T,
                    1e-4,
                )
    assert_close(found.rms["embed"]["embedding"], m["model.embed_tokens.weight"], 1e-4)


@pytest.mark.parametrize("selector", ["all", "blocks[1:].mlp"])
def test_the_rule_is_that_of_pytorch_chunk_by_chunk(selector):
    model, params = small()
    rms = statistics()[0].of(partition(params, selector))
    optimizer = optax.chain(
        transforms.scale_by_prior_rms(rms, EPS),
        optax.scale_by_learning_rate(RATE),
        transforms.decay_to_prior(DECAY, rms),
    )
    found = evaluate(model, params, TEXT, optimizer=optimizer, chunk=CHUNK, adapt=selector)

    decoder, m, mean = theirs()
    prior = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    trained = lambda name: (
        selector == "all" or ("mlp" in name and "layernorm" not in name and "layers.0" not in name)
    )

    @torch.no_grad()
    def learn(decay=DECAY):
        for name, p in decoder.named_parameters():
            if trained(name):
                pull = decay * torch.clamp(m[name] / mean, max=1 / decay)
                p += pull * (prior[name] - p) - RATE * p.grad / (m[name] + EPS)

    @torch.no_grad()
    def restore():
        for name, p in decoder.named_parameters():
            p.copy_(prior[name])

    wanted = reference.online(decoder, TEXT, CHUNK, learn)
    restore()
    loose = reference.online(decoder, TEXT, CHUNK, functools.partial(learn, decay=1e-9))
    restore()
    assert any((DECAY * part / mean > 1).any() for part in m.values())  # the bound is met
    assert np.abs(wanted - loose)[-70:].max() > 0.05  # the pull can be seen
    assert_close(found.nll, wanted, 1e-4)


def test_statistics_survive_a_file(tmp_path):
    found = statistics()[0]
    transforms.save_rms(tmp_path / "rms.safetensors", found)
    again = transforms.load_rms(tmp_path / "rms.safetensors")
    assert (again.mean, again.batches) == (found.mean, found.batches)
    jax.tree.map(np.testing.assert_array_equal, again.rms, found.rms)
    whole = (tmp_path / "rms.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.safetensors", "missing.safetensors"):
        with pytest.raises(InputError, match="cannot be read as gradient statistics") as error:
            transforms.load_rms(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda rms: transforms.scale_by_prior_rms(rms, 0.0), "eps=0.0"),
        (lambda rms: transforms.decay_to_prior(-0.1), "rate=-0.1"),
        (lambda rms: transforms.decay_to_prior(1.5), "rate=1.5"),
        (
            lambda rms: transforms.scale_by_prior_rms(rms, 1.0).init(small()[1]["blocks"]),
            "differ at",
        ),
        (
            lambda rms: transforms.decay_to_prior(0.1, rms).init(
                {"head": {"kernel": np.ones([24, 60])}}
            ),
            "same selector",
        ),
        (lambda rms: transforms.gradient_rms(*small(), []), "no batch"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(InputError, match=message) as error:
        make(statistics()[0])
    assert "\n" not in str(error.value)
