"""Detects that the text has changed: a cumulative-sum test on the adapted model's excess nll.

The excess of a chunk is its online nll minus its static nll, in nats per token. While memory helps,
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

LEAST_DEVIATION = 1e-4
"""Nats: a smaller standard deviation counts as this; an excess that never varies gives no alarm."""


@dataclasses.dataclass(frozen=True)
class ChangeDetector:
    """The model returns to where it began when the excess nll has risen.

    An alarm is given when `g = max(0, g + z - slack)` exceeds the threshold; z is the chunk's
    excess, less the mean of those before it, divided by their standard deviation. For a normal
    excess of known mean and deviation, false alarms are `(exp(2 k b) - 2 k b - 1) / (2 k^2)` chunks
    apart, with `k = slack` and `b = threshold + 1.166` (Siegmund 1985, section II.6): 19,000 by
    default (measured, with both estimated: 15,900, and 5,300 for Student's t with 6 degrees of
    freedom). A rise by d deviations is found after about `b / (d - slack)` chunks: 6 for d = 2.

    Attributes:
      threshold: deviations that add up before an alarm.
      slack: deviations that a chunk may exceed the mean by at no charge; half of the rise to be
        found soonest.
      warmup: chunks after a start or reset that estimate mean and deviation only.
      back: the share of the way to the prior that is gone at an alarm: 1 is the prior itself, less
        a decayed copy.

    Raises:
      InputError: a threshold, slack, warmup or share out of range.

    >>> ChangeDetector(threshold=5.0)
    ChangeDetector(threshold=5.0, slack=0.5, warmup=16, back=1.0)
    """

    threshold: float = 8.0
    slack: float = 0.5
    warmup: int = 16
    back: float = 1.0

    def __post_init__(self) -> None:
        if not self.threshold > 0 or not self.slack >= 0:
            raise InputError(
                f"threshold={self.threshold}, slack={self.slack}: a threshold is positive, and a"
                " slack 0 or more"
            )
        if self.warmup < 2:
            raise InputError(f"warmup={self.warmup}: a mean and a deviation need at least 2 chunks")
        if not 0 < self.back <= 1:
            raise InputError(
                f"back={self.back}: the share of the way back to the prior is above 0 and at most 1"
            )


class CusumState(NamedTuple):
    """The state of the test: float32 scalars. Made by `start_cusum`.

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


def start_cusum() -> CusumState:
    """The state before the first chunk.

    >>> float(start_cusum().count)
    0.0
    """
    return CusumState(*[jnp.float32(0)] * 4)


def update_cusum(
    detector: ChangeDetector, state: CusumState, excess: Array
) -> tuple[CusumState, jax.Array]:
    """The state after one more chunk: pure, and made for a scan.

    Args:
      detector: the rule.
      state: before the chunk.
      excess: of the chunk, nats per token.

    Returns:
      The state (as before the first chunk, after an alarm), and whether there is an alarm.

    >>> excess = jnp.array([0.1, -0.1] * 10 + [0.9, 0.9])
    >>> update = lambda state, x: update_cusum(ChangeDetector(), state, x)
    >>> jax.lax.scan(update, start_cusum(), excess)[1][-3:].tolist()
    [False, True, False]
    """
    # z and g, from the chunks before this one.
    deviation = jnp.sqrt(state.square / jnp.maximum(state.count - 1, 1))
    z = (excess - state.mean) / jnp.maximum(deviation, LEAST_DEVIATION)
    risen = jnp.maximum(0, state.risen + z - detector.slack)
    risen = jnp.where(state.count >= detector.warmup, risen, 0)
    alarm = risen > detector.threshold
    # Running mean and sum of squares (Welford 1962).
    count = state.count + 1
    mean = state.mean + (excess - state.mean) / count
    square = state.square + (excess - state.mean) * (excess - mean)
    now = CusumState(count, mean, square, risen)
    return jax.tree.map(lambda value: jnp.where(alarm, 0, value), now), alarm
