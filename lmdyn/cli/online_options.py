"""The options of `lmdyn online`."""

import dataclasses
from typing import Annotated, Literal

import tyro

from lmdyn.cli import common

OPTIMIZERS = (
    "sgd",
    "momentum",
    "adam",
    "adam0",
    "adamw",
    "rmsprop",
    "adagrad",
    "lion",
    "muon",
    "rms",
)


@dataclasses.dataclass(frozen=True)
class Online:
    """Adapt a model online to a text, and compare it with itself unadapted.

    The text is cut into chunks. Each chunk is scored first, and then the model takes one optimizer
    step on it, so no token is scored by a model that has seen it.
    """

    model: common.Model
    data: common.Text
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Where to write the rows, as JSON Lines; their provenance goes to FILE.meta.json, every
    token's nll to FILE.trace.npz."""
    chunk: Annotated[int, tyro.conf.arg(metavar="C")] = 512
    """Predictions between two updates."""
    context: Literal["none", "cache", "overlap"] = "none"
    """What a chunk sees of the text before it: nothing, a cache of old keys and values, or a window
    encoded afresh."""
    window: Annotated[int | None, tyro.conf.arg(metavar="W", help_behavior_hint="")] = None
    """Tokens of the cache or the window; needed with them."""
    keep: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """First tokens of the text that a cache always keeps; 4 are enough."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sgd"
    """sgd, momentum, adam, adam0 (without momentum), adamw, rmsprop, adagrad, lion (optax); muon
    for the blocks' kernels, with adam for all else; or rms: the gradient over its root mean square
    on training text (Krause et al. 2018), see --statistics."""
    learning_rate: Annotated[float, tyro.conf.arg(metavar="RATE", aliases=["--lr"])] = 0.01
    """0.01 suits sgd; the others need a much lower one (adam: 1e-5)."""
    learning_rates: Annotated[
        str | None, tyro.conf.arg(metavar="A,B,...", aliases=["--rates"], help_behavior_hint="")
    ] = None
    """Learning rates to choose from, in place of --learning-rate: the one that is best on the first
    --prefix predictions."""
    prefix: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Predictions that the learning rate is chosen on; the others are not looked at."""
    decay: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of the way back to the unadapted parameters that every update takes."""
    statistics: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Root mean square of the gradient for --optimizer rms; made from --training if there is no
    such file yet."""
    training: Annotated[str | None, tyro.conf.arg(metavar="REF", help_behavior_hint="")] = None
    """Text like the model's training text; --batches of one chunk of it give the statistics."""
    batches: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Batches of --training."""
    adapt: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SELECTOR", help_behavior_hint="(default: all; blocks.mlp with --rank)"
        ),
    ] = None
    """Which parameters change: all, blocks[10:20].mlp, head, ... joined by +."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R", help_behavior_hint="")] = None
    """Adapt low-rank adapters of this rank beside the selected matrices, in place of these."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Optimizer steps per chunk."""
    every: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """Update only after every K-th chunk, by the mean gradient of the last K."""
    reset: Literal["never", "document", "change"] = "never"
    """When the model returns to its unadapted parameters: change is where a detector finds that
    what was learned no longer helps."""
    guard: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="")] = None
    """Stop adapting once it has lost this many nats in total against the unadapted model."""
    parallel: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """With --reset document: how many documents are read side by side, each with its own copy of
    what adapts."""
    tokens: common.Tokens = None
    bos: common.BosRule = "auto"
    end_of_text: common.EndOfText = None
    pre: common.Pre = None
    on_bad_document: common.OnBadDocument = "error"
    static: bool = True
    """Also score the text with the unadapted model."""
    dtype: common.Dtype = "auto"
    mesh: Annotated[
        str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")
    ] = None
    """Several devices: how many along each axis; 1,8,1 divides parameters by width. By default one
    device is used."""
