"""When the text changes: a cumulative-sum test on how much worse the adapted model does than the
static one.

The excess of a chunk is its online nll minus its static nll, in nats a token. While memory helps,
it lies below 0; where the text turns to something else, what was learned no longer helps, and the
excess rises above what it used to be. The test adds up how far (Page 1954; Hinkley 1971), in units
of the excess's own standard deviation, both estimated from the chunks since the last reset (Hawkins
1987), so that one threshold suits all models and chunk lengths.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.types import Array

FLOOR = 1e-4
"""Nats: a smaller standard deviation counts as this, so that an excess that never varies gives no alarm."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A rule of resetting. Made by `change`; its attributes are the arguments."""

    threshold: float
    slack: float
    warmup: int
    back: float


def change(
    threshold: float = 8.0, slack: float = 0.5, warmup: int = 16, back: float = 1.0
) -> Change:
    """The model returns to where it began when the excess nll has risen.

    An alarm is given when `g = max(0, g + z - slack)` exceeds the threshold; z is the chunk's
    excess, less the mean of those before it, divided by their standard deviation. For a normal
    excess of known mean and deviation, false alarms are `(exp(2 k b) - 2 k b - 1) / (2 k^2)` chunks
    apart, with `k = slack` and `b = threshold + 1.166` (Siegmund 1985, section II.6): 19,000 by
    default (measured, with both estimated: 15,900, and 5,300 for Student's t with 6 degrees of
    freedom). A rise by d deviations is found after about `b / (d - slack)` chunks: 6 for d = 2.

    Args:
      threshold: deviations that add up before an alarm.
      slack: deviations that a chunk may exceed the mean by at no charge; half of the rise to be
        found soonest.
      warmup: chunks after a start or reset that estimate mean and deviation only.
      back: the share of the way to the prior that is gone at an alarm: 1 is the prior itself, less
        a decayed copy.

    Raises:
      InputError: a threshold, slack, warmup or share that makes no sense.

    >>> change(threshold=5.0)
    Change(threshold=5.0, slack=0.5, warmup=16, back=1.0)
    """
    if not threshold > 0 or not slack >= 0:
        raise InputError(
            f"threshold={threshold}, slack={slack}: a threshold is positive, and a slack 0 or more"
        )
    if warmup < 2:
        raise InputError(f"warmup={warmup}: a mean and a deviation need at least 2 chunks")
    if not 0 < back <= 1:
        raise InputError(
            f"back={back}: the share of the way back to the prior is above 0 and at most 1"
        )
    return Change(threshold, slack, warmup, back)


class Seen(NamedTuple):
    """What the test remembers: float32 scalars.

    Attributes:
      count: chunks since the last reset.
      mean: of their excess.
      square: sum of squared deviations from it.
      risen: g.
    """

    count: jax.Array
    mean: jax.Array
    square: jax.Array
    risen: jax.Array


def unseen() -> Seen:
    """Before the first chunk."""
    return Seen(*[jnp.float32(0)] * 4)


def follow(rule: Change, seen: Seen, excess: Array) -> tuple[Seen, jax.Array]:
    """One chunk more: pure, and made for a scan.

    Args:
      excess: of the chunk, nats a token.

    Returns:
      What is remembered (nothing, after an alarm), and whether there is an alarm.

    >>> excess = jnp.array([0.1, -0.1] * 10 + [0.9, 0.9])
    >>> jax.lax.scan(lambda seen, x: follow(change(), seen, x), unseen(), excess)[1][
    ...     -3:
    ... ].tolist()
    [False, True, False]
    """
    deviation = jnp.sqrt(seen.square / jnp.maximum(seen.count - 1, 1))
    z = (excess - seen.mean) / jnp.maximum(deviation, FLOOR)
    risen = jnp.where(seen.count >= rule.warmup, jnp.maximum(0, seen.risen + z - rule.slack), 0)
    alarm = risen > rule.threshold
    count = seen.count + 1
    mean = seen.mean + (excess - seen.mean) / count
    square = seen.square + (excess - seen.mean) * (excess - mean)
    found = Seen(count, mean, square, risen)
    return jax.tree.map(lambda now: jnp.where(alarm, 0, now), found), alarm
