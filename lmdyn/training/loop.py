"""A training run, from its config to its last checkpoint."""

import functools
import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import records
from lmdyn.allocator import keep_memory
from lmdyn.checkpoints import runs
from lmdyn.checkpoints.runs.processes import shared
from lmdyn.costs import peak_flops, step_flops
from lmdyn.errors import InputError
from lmdyn.files import atomic_write, check_writable
from lmdyn.params import Adapters
from lmdyn.records import provenance
from lmdyn.training import distributed, objectives
from lmdyn.training import sharding as meshes
from lmdyn.training import train_step as steps
from lmdyn.training.config import TrainConfig, differences, to_json
from lmdyn.training.evaluation import Evaluator
from lmdyn.training.interventions import Interventions
from lmdyn.training.log import ROWS, Log
from lmdyn.training.optimizer import schedule
from lmdyn.training.prepare import Prepared, prepare
from lmdyn.types import Say


class Finished(NamedTuple):
    """How a run ended: at `step` of `steps`, and by which signal (None: it is done). Made by
    `train`.
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
    """Starts a run, or goes on with it, until its last step or a signal.

    SIGTERM (preemption) and SIGINT (Ctrl-C) end it after the step at hand, with a checkpoint. Going
    on gives the same bits as never having stopped, on the same mesh; on another mesh the same up to
    rounding.

    Args:
      config: the run.
      command: the words of the command line, for the record.
      progress: show a bar. say: called with lines for the user; default: standard error.

    Returns:
      A `Finished`.

    Raises:
      InputError: something is wrong with the config, the texts, the model, the mesh or the run's
        folder; the loss is no finite number any more; a checkpoint could not be written.

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
    known = _known(folder, config)
    prepared = prepare(config, known and known.tokenizer, progress and primary)
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
    runs.record(folder, provenance.collect(command or [], written, started, 0, config.seed))

    keep = config.checkpoints
    retention = runs.Retention(every=keep.every, powers_of_two=keep.powers_of_two, last=keep.last)
    with runs.Checkpoints(folder, retention) as checkpoints:
        state, position = _begin(prepared, checkpoints, say)
        step = int(position["step"])
        batches: Any = iter(prepared.stream)  # of Grain, which can be set to a position
        if position["data"] is not None:
            batches.set_state(position["data"])
        if step:
            say(f"{folder}: going on from step {step} of {config.steps}")
        with (
            Log(folder, step, config.steps, progress and primary, primary) as log,
            distributed.guard() as guard,
        ):
            run = _Loop(prepared, checkpoints, log, batches, position["tokens"], say)
            stopped = run.go(state, step, guard, fresh=not position["saved"])
            checkpoints.wait()
    if primary and run.step > step:
        tokens, metric = run.tokens - position["tokens"], prepared.metric
        meta = provenance.collect(command or [], written, started, tokens, config.seed)
        _write_meta(folder, meta, () if metric is None else metric.quantities)
    return Finished(run.step, config.steps, stopped)


class _Loop:
    """The loop. What it holds is where it is; what it computes is all in the pure step."""

    def __init__(
        self, prepared: Prepared, checkpoints: runs.Checkpoints, log: Log, batches, tokens: int, say
    ):
        config = prepared.config
        self.prepared, self.config, self.checkpoints, self.log, self.batches = (
            prepared,
            config,
            checkpoints,
            log,
            batches,
        )
        self.tokens, self.say, self.step = tokens, say, 0
        self.evaluator = Evaluator(prepared, f"run:{config.out}")
        self.rate = schedule(config.optimizer, config.steps)
        self.pending: list[tuple[int, dict]] = []
        self.clock = _Clock(prepared)
        self.interventions = Interventions(prepared)
        objective = objectives.make(config.objective)
        pure = steps.make_step(
            prepared.model,
            prepared.optimizer,
            part=prepared.part,
            accumulate=config.accumulate,
            objective=objective,
        )
        where = jax.tree.map(lambda leaf: leaf.sharding, prepared.state)
        self.update = jax.jit(pure, donate_argnums=0, out_shardings=(where, None))
        self.whole = jax.jit(functools.partial(steps.whole, part=prepared.part))

    def go(self, state, step: int, guard: distributed.Guard, fresh: bool) -> str | None:
        """Trains to the last step, or until a signal, whose name it returns."""
        self.step = step
        if fresh:
            self.after(state, last=self.config.steps == 0)
        while self.step < self.config.steps:
            batch = meshes.put_batch(next(self.batches), self.prepared.mesh)
            state, metrics = self.update(state, batch)
            self.step += 1
            self.pending.append((self.step, metrics))
            if (
                len(self.pending) > 1
            ):  # the device works on this step while the host looks at the one before
                self.look()
            state = self.interventions(state, self.step)
            asked = guard.at(self.step)
            self.after(state, last=self.step == self.config.steps, now=asked is not None)
            if asked is not None and self.step < self.config.steps:
                return asked
        return None

    def after(self, state, last: bool, now: bool = False) -> None:
        """What belongs between two steps: log, measurement, checkpoint, in this order, so that a
        checkpoint of a step means that all before it is on the disk.
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
        with self.clock.paused():
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
                if isinstance(
                    self.prepared.part, Adapters
                ):  # what they were added to is the start, which is read again
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
        speed = self.clock.count(tokens)
        shown = f"loss {metrics['loss']:.3f}, {speed['tokens_per_second']:,.0f} tokens/s"
        if step == 1 or step % self.config.log_every == 0 or step == self.config.steps:
            rate = float(np.asarray(self.rate(step - 1)))
            self.log.line(
                {"step": step, "tokens": self.tokens, **metrics, "learning_rate": rate, **speed}
            )
        self.log.shown(
            step, shown + (f", MFU {speed['mfu']:.0%}" if speed["mfu"] is not None else "")
        )


class _Clock:
    """Tokens a second and MFU over the last steps; compilation, measuring and saving are left out."""

    def __init__(self, prepared: Prepared, over: int = 20):
        config, model = prepared.config, prepared.model
        flops = step_flops(model.config, config.data.batch, config.data.length, prepared.part)
        self.flops_per_token = flops / (config.data.batch * config.data.length)
        at_most = peak_flops(prepared.mesh.devices.flat[0], _dtype(config))
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

    def paused(self):
        """What happens inside is not counted."""
        clock = self

        class Pause:
            def __enter__(self):
                self.at = time.perf_counter()

            def __exit__(self, *_):
                if clock.last is not None:
                    clock.last += time.perf_counter() - self.at

        return Pause()


def _known(folder: Path, config: TrainConfig) -> runs.RunInfo | None:
    """What the folder's run is; None if there is none yet. Another config than this one is an
    `InputError`.
    """
    if not shared(
        lambda: (folder / "run.json").exists()
    ):  # one answer for all hosts, whichever is late
        return None
    known = runs.describe(folder)
    if changed := differences(known.config, to_json(config)):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise InputError(
            f"{folder} holds a run with another config: {changed[0]}{more}; choose another --out,"
            " or the config it was made with"
        )
    return known


def _begin(prepared: Prepared, checkpoints: runs.Checkpoints, say) -> tuple[steps.TrainState, dict]:
    """The state and position to go on from: the newest whole checkpoint, or the beginning."""
    part = prepared.part
    like = (
        jax.eval_shape(functools.partial(steps.whole, part=part), prepared.state)
        if part
        else prepared.state.params
    )
    if part is not None:
        like = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            like,
            meshes.param_shardings(like, prepared.mesh, prepared.model.config),
        )
    warn = lambda message: say(f"warning: {message}")
    items = {"params": like, "optimizer": prepared.state.optimizer}
    if isinstance(part, Adapters):
        items["adapters"] = prepared.state.params
    found = checkpoints.resume(items, warn)
    if found is None:
        return prepared.first(), {"step": 0, "tokens": 0, "data": None, "saved": False}
    step, items, position = found
    split = (lambda params: (params, None)) if part is None else part.split
    where = jax.tree.map(lambda leaf: leaf.sharding, prepared.state)
    if isinstance(part, Adapters):
        rest, copied = (
            prepared.first().frozen,
            jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=where.params),
        )
        optimizer = jax.jit(
            lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=where.optimizer
        )(items["optimizer"])
        return (
            steps.TrainState(
                jax.device_put(np.int32(step), where.step),
                copied(items["adapters"]),
                rest,
                optimizer,
            ),
            position,
        )

    def assemble(params, optimizer):
        chosen, rest = split(params)
        return steps.TrainState(np.int32(step), chosen, rest, optimizer)

    # A jitted copy, also because what a checkpoint library returns need not be memory that the step
    # may take over.
    return jax.jit(assemble, out_shardings=where)(items["params"], items["optimizer"]), position


def _dtype(config: TrainConfig) -> str:
    return config.compute.resolved().dtype


def _write_meta(folder: Path, meta: dict[str, Any], quantities: Iterable[records.Quantity]) -> None:
    """What made the rows, beside them, as for any other rows."""
    if (folder / ROWS).exists() and (folder / ROWS).stat().st_size:
        config = meta["config"]
        measured = {
            **(config["evaluation"] or {}),
            "length": config["data"]["length"],
            "train": config,
        }
        meta |= {"config": measured, "metrics": records.describe(quantities)}
        atomic_write(folder / f"{ROWS}.meta.json", json.dumps(meta, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
