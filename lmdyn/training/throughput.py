"""How fast a run is: tokens per second, and the share of its devices' peak."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmdyn.costs import peak_flops, step_flops

if TYPE_CHECKING:
    from lmdyn.training.prepare import Prepared


class Throughput:
    """Tokens per second and MFU over the last steps. Part of `lmdyn.training.train`.

    The time of compiling, measuring and saving is not counted. MFU: model FLOPs utilisation,
    Chowdhery et al. 2022, arXiv 2204.02311, appendix B.

    Args:
      prepared: the run.
      over: how many steps the mean is over.
    """

    def __init__(self, prepared: "Prepared", over: int = 20) -> None:
        config, model = prepared.config, prepared.model
        flops = step_flops(model.config, config.data.batch, config.data.length, prepared.part)
        self.flops_per_token = flops / (config.data.batch * config.data.length)
        at_most = peak_flops(prepared.mesh.devices.flat[0], config.compute.resolved().dtype)
        self.peak = None if at_most is None else at_most * prepared.mesh.size
        self.recent: list[tuple[float, int]] = []
        self.last: float | None = None
        self.over = over

    def count(self, tokens: int) -> dict:
        """To be called when a step is done."""
        now = time.perf_counter()
        if self.last is not None:
            self.recent = [*self.recent[1 - self.over :], (now - self.last, tokens)]
        self.last = now
        seconds = sum(s for s, _ in self.recent)
        speed = sum(n for _, n in self.recent) / seconds if seconds else 0.0
        mfu = speed * self.flops_per_token / self.peak if self.peak else None
        return {"tokens_per_second": round(speed, 1), "mfu": mfu and round(mfu, 4)}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not counted."""
        started = time.perf_counter()
        yield
        if self.last is not None:
            self.last += time.perf_counter() - started
