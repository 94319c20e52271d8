"""Parameter transforms that depend on a measurement."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """A parameter transform that first wants something measured.

    Two pure functions, so that whoever has a text can apply it.

    >>> import numpy as np
    >>> from lmdyn import data, metrics, models, transforms
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params, batches = models.init(model), data.windows(np.arange(10), length=3)
    >>> wake = transforms.reactivation(ratio=0.5)
    >>> result = metrics.measure(wake.metric, model, params, batches)
    >>> awake = wake.change(params, result)
    >>> bool(metrics.measure(wake.metric, model, awake, batches).total > result.total)
    True
    """

    metric: Any
    """A `lmdyn.metrics.Metric`. Made once, so that measuring again compiles nothing."""
    change: Callable[[Any, Any], Any]
    """`(params, result of the metric) -> params`."""
