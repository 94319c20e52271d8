"""Measuring inside a run.

The same metrics, on the same held-out text, as `lmdyn measure` would afterwards.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmdyn import metrics, records
from lmdyn.data.windows import Batch
from lmdyn.models.modules import LanguageModel
from lmdyn.training import sharding
from lmdyn.training.train_step import TrainState
from lmdyn.types import Tree, present

if TYPE_CHECKING:
    from lmdyn.training.prepare import Prepared


class Evaluator:
    """The held-out measurements of a run, as rows. Part of `lmdyn.training.train`.

    Args:
      prepared: the run; where its `metric` is None, nothing is measured.
      name: what the rows call the model.
    """

    def __init__(self, prepared: "Prepared", name: str) -> None:
        self.prepared, self.name = prepared, name
        self.batches: list | None = None

    def due(self, step: int) -> bool:
        """Whether a measurement belongs to this step."""
        evaluation, last = self.prepared.config.evaluation, self.prepared.config.steps
        return evaluation is not None and (step % evaluation.every == 0 or step == last)

    def measure(self, state: TrainState, step: int) -> list[dict]:
        """The rows of all metrics, for the parameters of `state`."""
        prepared = self.prepared
        place = sharding.batch_sharding(prepared.mesh)
        if self.batches is None:  # they stay on the devices
            self.batches = [
                sharding.put(batch, jax.tree.map(lambda _: place, batch))
                for batch in prepared.held_out
            ]
        part = prepared.part
        params = state.params if part is None else part.merge(state.params, state.frozen)
        results = measure(prepared.metric, prepared.model, params, self.batches, prepared.mesh)
        tokens = prepared.held_out.tokens
        return [
            records.row(model=self.name, **{"step": step, "tokens": tokens, **row})
            for row in prepared.metric.rows(results)
        ]


def measure(
    metric: metrics.Metric,
    model: LanguageModel,
    params: Tree,
    batches: Iterable[Batch],
    mesh: Mesh | None,
) -> Any:
    """`metrics.measure` on a mesh that may span several processes.

    Every process has the whole result.

    Args:
      metric: from this package, or `combine(...)` of several.
      model: the model, as `lmdyn.load` returns it.
      params: placed on the mesh.
      batches: on its devices.
      mesh: of devices.

    >>> import numpy as np
    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> measure(metrics.likelihood(), model, models.init(model), batches, mesh=None).tokens
    8.0
    """
    sums = metrics.accumulate(metric, model, params, batches)
    if jax.process_count() > 1:
        everywhere = NamedSharding(present(mesh), PartitionSpec())
        head = "head" if "head" in params else "embed"
        sums, found = jax.jit(lambda tree: tree, out_shardings=everywhere)((sums, params[head]))
        params = {**params, head: found}
    return metric.finish(sums, params)
