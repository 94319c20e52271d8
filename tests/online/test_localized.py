"""Online adaptation restricted or scaled by a profile."""

import jax
import numpy as np
import optax
import pytest

from lmdyn import online, transforms
from lmdyn.errors import InputError
from lmdyn.params import flatten
from lmdyn.studies.gradient_localization.restrictions import restriction, selector
from lmdyn.studies.gradient_localization.stream_parts import streamed
from tests.helpers import small, tokens
from tests.online.helpers import chunked, evaluate

PROFILE = {"attention": [0.5, 1.4, 0.9], "mlp": [0.7, 0.8, 2.0]}  # mean 1.05
RULE = optax.sgd(0.05)


def run(adapt, optimizer=RULE, **options):
    model, params = small(scale=1.0)
    return evaluate(
        model, params, tokens(60), optimizer=optimizer, chunk=12, adapt=adapt, **options
    )


def test_freeze_is_the_selector_of_what_lies_above_the_mean():
    found, wanted = run(transforms.localized(PROFILE)), run("blocks[1].attention+blocks[2].mlp")
    np.testing.assert_array_equal(found.nll, wanted.nll)
    assert found.flops == wanted.flops < run("all").flops
    _, params = small(scale=1.0)
    for path, leaf in flatten(found.params).items():
        same = np.array(
            np.asarray(leaf).view(np.uint32) == np.asarray(flatten(params)[path]).view(np.uint32)
        )
        still = (
            {"attention": [0, 2], "mlp": [0, 1]}.get(path[1], slice(None))
            if path[0] == "blocks"
            else slice(None)
        )
        assert same[still].all(), path


def test_scale_multiplies_the_updates_of_layers():
    """By hand: one chunk, one step of SGD, updates times r over its mean."""
    model, params = small(scale=1.0)
    ids = tokens(13)
    found = evaluate(
        model, params, ids, optimizer=RULE, chunk=12, adapt=transforms.localized(PROFILE, "scale")
    ).params
    plain = evaluate(model, params, ids, optimizer=RULE, chunk=12, adapt="all").params
    for group, r in PROFILE.items():
        path = ("blocks", group, {"attention": "query", "mlp": "down"}[group], "kernel")
        before, all_alike, scaled = (
            np.asarray(flatten(tree)[path]) for tree in (params, plain, found)
        )
        wanted = before + np.reshape(r, (3, 1, 1)) / 1.05 * (all_alike - before)
        np.testing.assert_allclose(scaled, wanted, atol=2e-6)
    np.testing.assert_allclose(found["head"]["kernel"], plain["head"]["kernel"], atol=1e-6)


@pytest.mark.parametrize("mode", ["plain", "freeze", "scale"])
def test_the_study_runs_every_restriction_in_one_program_with_the_same_numbers(mode):
    """Rates in the state, 0 where frozen, against a selector that leaves frozen layers out."""
    model, params = small(scale=1.0)
    chunks = chunked(tokens(60), chunk=12, context=online.none())
    rates = restriction(mode, PROFILE, seed=4)
    found = streamed("any", model, 2)(params, rates, 0.01, chunks)[chunks.mask]
    optimizer = optax.chain(optax.scale_by_adam(b1=0.0), optax.scale(-0.01))
    adapt = transforms.localized(PROFILE, "scale") if mode == "scale" else selector(rates)
    wanted = evaluate(
        model, params, chunks, optimizer=optimizer, chunk=12, adapt=adapt, steps=2
    ).nll
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_controls_are_as_large_as_what_they_control():
    count = lambda mode, seed=0: sum(
        int((v > 0).sum()) for v in restriction(mode, PROFILE, seed).groups.values()
    )
    assert count("freeze") == count("random", 1) == count("random", 2) == 2
    assert count("complement") == 4 and count("blocks") == count("plain") == 6
    frozen, rest = (
        restriction("freeze", PROFILE, 0).groups,
        restriction("complement", PROFILE, 0).groups,
    )
    assert all((frozen[group] + rest[group] == 1).all() for group in PROFILE)
    drawn = {
        tuple(np.concatenate(list(restriction("random", PROFILE, seed).groups.values())))
        for seed in range(20)
    }
    assert len(drawn) > 5


@pytest.mark.parametrize(
    "profile, message",
    [
        ({"attention": [1.0] * 4, "mlp": [2.0] * 4}, "4 layers, and the parameters have 3 blocks"),
        (
            {"attention": [1.0, 0.0, 2.0], "mlp": [1.0] * 3},
            "the profile of attention is 0.0 at layer 1",
        ),
        (
            {"attention": [1.0, 3.0, 2.0], "mlp": [np.nan] * 3},
            "the profile of mlp is nan at layer 0",
        ),
        ({"mlp": [1.0, 2.0, 3.0]}, "unknown group of the profile 'attention'"),
    ],
)
def test_a_profile_that_does_not_fit_is_one_line(profile, message):
    for mode in ("freeze", "scale"):
        with pytest.raises(InputError) as error:
            run(transforms.localized(profile, mode))
        assert message in str(error.value) and "\n" not in str(error.value)


def test_the_profile_may_be_re_estimated_online():
    _, params = small(scale=1.0)
    reference = {group: np.ones(3) for group in PROFILE}
    found = run("all", transforms.relocalize(RULE, reference, "freeze"))
    assert np.isfinite(found.nll).all()
    moved = [
        np.asarray(leaf != old).any()
        for leaf, old in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True)
    ]
    assert any(moved) and not all(moved)
