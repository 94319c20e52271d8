"""Relative gradient norms: the ratio of means, and an interval that scipy finds, too."""

import numpy as np
import pytest
from scipy import stats

from lmdyn import transforms
from lmdyn.errors import InputError
from lmdyn.metrics import LayerGradients, compare_profiles, relative_gradients

LAYERS = {"attention": (0, 1, 2), "mlp": (0, 1, 2), "head": None}


def norms(
    sequences: int, seed: int, scale: float = 1.0, layers=LAYERS, depth: int = 3
) -> LayerGradients:
    rng = np.random.default_rng(seed)
    draw = lambda at: (
        scale * rng.gamma(2.0, size=(sequences,) if at is None else (len(at), sequences))
    )
    return LayerGradients(
        {group: draw(at) for group, at in layers.items()},
        layers,
        depth,
        np.ones(sequences),
        np.ones(sequences, int),
    )


def test_the_ratio_of_means_and_its_interval():
    probe, reference = norms(23, 1, 1.5), norms(37, 2)
    found = relative_gradients(probe, reference, resamples=20000, level=0.9)
    for group in LAYERS:
        mean = [part.norms[group].mean(-1) for part in (probe, reference)]
        np.testing.assert_allclose(found[group], mean[0] / mean[1], rtol=1e-12)
        assert found.low[group].shape == found[group].shape == mean[0].shape
        wanted = stats.bootstrap(
            (probe.norms[group], reference.norms[group]),
            lambda a, b, axis: a.mean(axis) / b.mean(axis),
            vectorized=True,
            axis=-1,
            n_resamples=20000,
            confidence_level=0.9,
            method="percentile",
            rng=3,
        )
        # ends of an interval from 20,000 draws scatter by about 1.5% of its width
        width = wanted.confidence_interval.high - wanted.confidence_interval.low
        for ends, theirs in zip((found.low, found.high), wanted.confidence_interval, strict=True):
            assert np.all(np.abs(ends[group] - theirs) < 0.06 * width)


def test_a_seed_gives_one_interval_and_rows_hold_it():
    probe, reference = norms(9, 1), norms(7, 2)
    found, again, other = (
        relative_gradients(probe, reference, seed=seed, resamples=200) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(found.low["mlp"], again.low["mlp"])
    assert not np.array_equal(found.low["mlp"], other.low["mlp"])
    rows = {(row["site"], row["layer"]): row for row in found.rows()}
    assert len(rows) == 7
    assert (
        rows["mlp", 1]["value"] == found["mlp"][1]
        and rows["mlp", 1]["high"] == found.high["mlp"][1]
    )
    assert transforms.trained(found) == transforms.trained(
        {group: found.ratio[group] for group in ("attention", "mlp")}
    )
    assert rows["head", None]["sequences"] == 9 and rows["head", None]["reference_sequences"] == 7


@pytest.mark.parametrize("tilt", [0.0, 0.25, 2.0])
def test_a_difference_of_profiles_is_as_likely_as_scipy_says(tilt):
    first, second = (
        norms(11, 1, 7.0),
        norms(13, 2),
    )  # a size that differs is not a difference of profile
    first.norms["mlp"][0] *= np.exp(tilt)
    found = compare_profiles(first, second, permutations=4000)
    stacked = [np.log(np.vstack(list(part.norms.values()))) for part in (first, second)]
    profiles = [logs - logs.mean(0) for logs in stacked]

    def size(a, b, axis):  # [..., G, P], or permuted: [G, N, P]
        difference = a.mean(axis) - b.mean(axis)
        return np.sqrt(np.square(difference).mean(0 if difference.ndim == 1 else -1))

    wanted = stats.permutation_test(
        profiles, size, vectorized=True, n_resamples=4000, alternative="greater", axis=-1, rng=3
    )
    difference = profiles[0].mean(1) - profiles[1].mean(1)
    np.testing.assert_allclose(np.hstack(list(found.difference.values())), difference, atol=1e-12)
    assert found.size == pytest.approx(wanted.statistic)
    assert found.p == pytest.approx(wanted.pvalue, abs=0.04)  # 4 standard errors of 4,000 draws
    assert (found.p < 0.01) == (tilt == 2.0)


def test_profiles_that_cannot_be_compared_are_an_error():
    for first, second, options, message in [
        (norms(5, 1), norms(5, 2, depth=4), {}, "of 3 layers and the second's of 4"),
        (norms(5, 1), norms(1, 2), {}, "the second has 1 sequence"),
        (with_value(0.0), norms(5, 2), {}, "the first's norms are 0 in mlp of layer 1"),
        (norms(5, 1), norms(5, 2), {"permutations": 0}, "permutations=0"),
    ]:
        with pytest.raises(InputError, match=message):
            compare_profiles(first, second, **options)


def with_value(value):
    probe = norms(5, 1)
    probe.norms["mlp"][1, 2] = value
    return probe


@pytest.mark.parametrize(
    "probe, reference, options, message",
    [
        (norms(5, 1), norms(5, 2, depth=4), {}, "of 3 layers and the reference's of 4"),
        (norms(5, 1), norms(5, 2, layers={"mlp": (0, 1, 2)}), {}, "reference's mlp"),
        (norms(5, 1), norms(1, 2), {}, "the reference has 1 sequence"),
        (with_value(np.nan), norms(5, 2), {}, "the probe's norms are not finite in mlp of layer 1"),
        (norms(5, 1), norms(5, 2, 0.0), {}, "mean norm is 0 in attention of layer 0"),
        (norms(5, 1), norms(5, 2), {"level": 95}, "level=95"),
        (norms(5, 1), norms(5, 2), {"resamples": 0}, "resamples=0"),
    ],
)
def test_what_has_no_ratio_is_an_error(probe, reference, options, message):
    with pytest.raises(InputError) as error:
        relative_gradients(probe, reference, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
