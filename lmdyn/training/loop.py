"""A training run, from its config to its last checkpoint."""

import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmdyn import records
from lmdyn.allocator import keep_memory
from lmdyn.checkpoints import runs
from lmdyn.errors import InputError
from lmdyn.files import atomic_write, check_writable
from lmdyn.params import Adapters
from lmdyn.records import provenance
from lmdyn.training import distributed, fit, sharding, train_step
from lmdyn.training.config import TrainConfig, differences, to_json
from lmdyn.training.evaluation import Evaluator
from lmdyn.training.interventions import Interventions
from lmdyn.training.log import ROWS_FILE, Log
from lmdyn.training.optimizer import schedule
from lmdyn.training.prepare import Prepared, prepare
from lmdyn.training.resumption import begin, known_run
from lmdyn.training.throughput import Throughput
from lmdyn.training.train_step import TrainState
from lmdyn.types import Say


class Finished(NamedTuple):
    """How a run ended: at `step` of `steps`, and by which signal. Made by `train`.

    The signal is None if the run completed.
    """

    step: int
    steps: int
    signal: str | None


def train(
    config: TrainConfig,
    command: list[str] | None = None,
    progress: bool = False,
    say: Say | None = None,
) -> Finished:
    """Starts a run, or resumes it, until its last step or a signal.

    SIGTERM (preemption) and SIGINT (Ctrl-C) end it after the step at hand, with a checkpoint.
    Resuming gives the same bits as never having stopped, on the same mesh; on another mesh the same
    up to rounding.

    Args:
      config: the run.
      command: the words of the command line, for the record.
      progress: show a bar.
      say: called with lines for the user; default: standard error.

    Returns:
      A `Finished`.

    Raises:
      InputError: something is wrong with the config, the texts, the model, the mesh or the run's
        folder; the loss is not a finite number any more; a checkpoint could not be written.

    >>> import tempfile
    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "text.txt").write_text("a text of a few words, over and over; " * 20)
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> data = Data(
    ...     (Source(f"text:{folder}/text.txt"),),
    ...     length=16,
    ...     batch=8,
    ...     tokenizer="bytes",
    ...     cache=str(folder / "tokens"),
    ... )
    >>> run = TrainConfig(out=str(folder / "run"), data=data, steps=2, model=tiny)
    >>> train(run, say=lambda line: None)
    Finished(step=2, steps=2, signal=None)
    """
    started = time.time()
    keep_memory()
    primary = distributed.is_primary()
    say = (say or _say) if primary else (lambda text: None)
    folder = Path(config.out)
    check_writable(folder / "run.json")
    known = known_run(folder, config)
    prepared = prepare(config, known and known.tokenizer, progress and primary)
    remat, update = _fitting_update(prepared)
    written = to_json(config)
    if known is None:
        runs.create(
            folder,
            model=prepared.model.config,
            tokenizer=prepared.tokenizer,
            config=written,
            data=prepared.stream.fingerprint,
        )
    elif changed := differences(known.data, prepared.stream.fingerprint):
        raise InputError(
            f"{folder}: its position in the data is of other data ({changed[0]}); bring the texts"
            " back, or choose another --out"
        )
    meta = provenance.collect(command or [], written, started, 0, config.seed)
    runs.record(folder, {**meta, "remat": remat})
    if remat != "none":
        say(f"{folder}: computed again in the backward pass, to save memory: {remat}")

    keep = config.checkpoints
    retention = runs.Retention(every=keep.every, powers_of_two=keep.powers_of_two, last=keep.last)
    with runs.Checkpoints(folder, retention) as checkpoints:
        state, position = begin(prepared, checkpoints, say)
        step = int(position["step"])
        batches: Any = iter(prepared.stream)  # of Grain, which can be set to a position
        if position["data"] is not None:
            batches.set_state(position["data"])
        if step:
            say(f"{folder}: resuming at step {step} of {config.steps}")
        with (
            Log(folder, step, config.steps, progress and primary, primary) as log,
            distributed.guard() as guard,
        ):
            run = Loop(prepared, update, checkpoints, log, batches, position["tokens"])
            stopped = run.go(state, step, guard, fresh=not position["saved"])
            checkpoints.wait()
    if primary and run.step > step:
        tokens, metric = run.tokens - position["tokens"], prepared.metric
        meta = provenance.collect(command or [], written, started, tokens, config.seed)
        _write_meta(folder, meta, () if metric is None else metric.quantities)
    return Finished(run.step, config.steps, stopped)


class Loop:
    """The training loop: where the run is; the pure step computes. Part of `train`.

    Args:
      prepared: the run.
      update: the jitted step.
      checkpoints: where they are saved.
      log: the run's files.
      batches: iterator over batches that knows its position.
      tokens: trained on so far.
    """

    def __init__(
        self,
        prepared: Prepared,
        update: Callable,
        checkpoints: runs.Checkpoints,
        log: Log,
        batches: Any,
        tokens: int,
    ) -> None:
        config = prepared.config
        self.prepared, self.config, self.log = prepared, config, log
        self.checkpoints, self.batches = checkpoints, batches
        self.tokens, self.step = tokens, 0
        self.evaluator = Evaluator(prepared, f"run:{config.out}")
        self.rate = schedule(config.optimizer, config.steps)
        self.pending: list[tuple[int, dict]] = []
        self.throughput = Throughput(prepared)
        self.interventions = Interventions(prepared)
        self.update = update
        self.whole = jax.jit(functools.partial(train_step.whole, part=prepared.part))

    def go(self, state: TrainState, step: int, guard: distributed.Guard, fresh: bool) -> str | None:
        """Trains to the last step, or until a signal, whose name it returns."""
        self.step = step
        if fresh:
            self.after(state, last=self.config.steps == 0)
        while self.step < self.config.steps:
            batch = sharding.put_batch(next(self.batches), self.prepared.mesh)
            state, metrics = self.update(state, batch)
            self.step += 1
            self.pending.append((self.step, metrics))
            if len(self.pending) > 1:
                self.look()  # at the step before, while the device works on this one
            state = self.interventions(state, self.step)
            asked = guard.at(self.step)
            self.after(state, last=self.step == self.config.steps, now=asked is not None)
            if asked is not None and self.step < self.config.steps:
                return asked
        return None

    def after(self, state: TrainState, last: bool, now: bool = False) -> None:
        """What belongs between two steps: log, measurement, checkpoint, in this order.

        So a checkpoint of a step means that all before it is on the disk.
        """
        keep, step = self.config.checkpoints, self.step
        power = keep.powers_of_two and (step & (step - 1)) == 0
        save = (
            last
            or now
            or step == 0
            or power
            or step % keep.save == 0
            or bool(keep.every and step % keep.every == 0)
        )
        measure = self.evaluator.due(step)
        if not (save or measure):
            return
        while self.pending:
            self.look()
        with self.throughput.paused():
            if measure:
                self.log.rows(self.evaluator.measure(state, step))
            if save:
                position = {
                    "step": step,
                    "tokens": self.tokens,
                    "data": self.batches.get_state(),
                    "saved": True,
                }
                items = {"params": self.whole(state), "optimizer": state.optimizer}
                if isinstance(self.prepared.part, Adapters):
                    # What they were added to is the start, which is read again.
                    items["adapters"] = state.params
                self.checkpoints.save(step, items, position)

    def look(self) -> None:
        """Reads the oldest step's numbers from the device: checks them, counts, logs."""
        step, metrics = self.pending.pop(0)
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(metrics[name]):
                self.pending.clear()
                self.checkpoints.wait()
                raise InputError(
                    f"{name.replace('_', ' ')} is {metrics[name]} at step {step}; the last good"
                    f" checkpoint is run:{self.config.out}@{runs.latest(self.config.out)}; lower"
                    f" optimizer.learning_rate (now {self.config.optimizer.learning_rate}), or clip"
                    " more, in a new --out"
                )
        tokens = int(metrics.pop("tokens"))
        self.tokens += tokens
        speed = self.throughput.count(tokens)
        shown = f"loss {metrics['loss']:.3f}, {speed['tokens_per_second']:,.0f} tokens/s"
        if step == 1 or step % self.config.log_every == 0 or step == self.config.steps:
            rate = float(np.asarray(self.rate(step - 1)))
            self.log.line(
                {"step": step, "tokens": self.tokens, **metrics, "learning_rate": rate, **speed}
            )
        self.log.shown(
            step, shown + (f", MFU {speed['mfu']:.0%}" if speed["mfu"] is not None else "")
        )


def _fitting_update(prepared: Prepared) -> tuple[str, Callable]:
    """What is computed again in the backward pass, and the jitted step.

    On an accelerator steps are compiled, before the run begins, until one fits.
    """
    config, model = prepared.config, prepared.model
    where = jax.tree.map(lambda leaf: leaf.sharding, prepared.state)

    def make(remat):
        compute = dataclasses.replace(model.compute, remat=remat)
        pure = train_step.make_step(
            model.clone(compute=compute),
            prepared.optimizer,
            part=prepared.part,
            accumulate=config.accumulate,
            objective=prepared.objective,
        )
        return jax.jit(pure, donate_argnums=0, out_shardings=(where, None))

    if jax.default_backend() == "cpu":
        return prepared.remats[0], make(prepared.remats[0])
    batch = fit.batch_shapes(config, sharding.batch_sharding(prepared.mesh))
    held = fit.shard_bytes(prepared.state)
    taken = lambda remat: fit.program_bytes(make(remat).lower(prepared.state, batch), held)[0]
    shape = fit.step_shape(config, model.config, prepared.part, prepared.state)
    remat = fit.first_that_fits(prepared.remats, shape, fit.room_here(), taken)
    return remat, make(remat)


def _write_meta(folder: Path, meta: dict[str, Any], quantities: Iterable[records.Quantity]) -> None:
    """What made the rows, beside them, as for any other rows."""
    if (folder / ROWS_FILE).exists() and (folder / ROWS_FILE).stat().st_size:
        config = meta["config"]
        measured = {
            **(config["evaluation"] or {}),
            "length": config["data"]["length"],
            "train": config,
        }
        meta |= {"config": measured, "metrics": records.describe(quantities)}
        atomic_write(folder / f"{ROWS_FILE}.meta.json", json.dumps(meta, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
