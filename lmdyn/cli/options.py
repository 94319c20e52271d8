"""What each verb of the command line takes: the fields are its options, their documentation is the
help.

Nothing here imports JAX. What a training run or a study is has its options elsewhere:
`lmdyn.cli.train_options`, `lmdyn.studies`.
"""

import dataclasses
from typing import Annotated, Literal

import tyro

Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Measure models over a text: one row a number.

    MODEL is hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]; @A,B and @* name a
    series of checkpoints. One forward pass a batch serves all metrics.
    """

    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)"),
    ]
    """Model references."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    metrics: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = (
        "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
    )
    """What to measure."""
    length: Annotated[int, tyro.conf.arg(metavar="T")] = 512
    """Tokens of one window."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 1
    """Windows of one forward pass."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""
    mesh: Annotated[
        str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")
    ] = None
    """Several devices: how many along each axis; 8,1,1 divides batches, 1,8,1 parameters. One device if not given."""


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Measure which layers facts light up: gradient norms of their spans, layer by layer, relative
    to random spans of a text.

    Each probe is a text with a marked span; its loss is the mean nll of the span, and the norm is
    that of its own gradient. One profile for each kind of knowledge that the probes name (updated,
    new, unchanged), with bootstrap intervals over sequences, and a test of whether two kinds lie in
    different places.
    """

    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)"),
    ]
    """Model references."""
    probe: Annotated[tuple[str, ...], tyro.conf.arg(metavar="REF [REF ...]")]
    """Probes: a JSON Lines file (prompt, target, kind), tfds:NAME:SPLIT, templama:PATH@OLD,NEW, ecbd:PATH@YEAR or temporalwiki:PATH."""
    reference: Annotated[str, tyro.conf.arg(metavar="REF")]
    """Text of the kind that the model was pretrained on: text:GLOB, jsonl:PATH#FIELD, tfds:NAME:SPLIT#FIELD or builtin:NAME."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    groups: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = "attention,mlp"
    """Groups of parameters: attention, mlp, norms, embed, head, or selectors such as blocks.mlp.up."""
    limit: Count = None
    """At most N probes of a kind, spread evenly; all of them if not given."""
    spans: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Random spans of the text."""
    length: Count = None
    """Tokens of the longest sequence; as long as the longest probe if not given."""
    tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 65536
    """Random spans come from the first N tokens of the text."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 16
    """Sequences of one pass."""
    resamples: Annotated[int, tyro.conf.arg(metavar="N")] = 2000
    """Draws of the bootstrap, and relabellings of the test."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the random spans, draws and relabellings."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""


@dataclasses.dataclass(frozen=True)
class Online:
    """Adapt a model online to a text, and compare it with itself unadapted.

    The text is cut into chunks. Each chunk is scored first, and then the model takes one optimizer
    step on it, so no token is scored by a model that has seen it.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model reference: hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here, what made them to FILE.meta.json, every token's nll to FILE.trace.npz."""
    chunk: Annotated[int, tyro.conf.arg(metavar="C")] = 512
    """Predictions between two updates."""
    context: Literal["none", "cache", "overlap"] = "none"
    """What a chunk sees before itself: nothing, a cache of old keys and values, or a window encoded afresh."""
    window: Annotated[int | None, tyro.conf.arg(metavar="W", help_behavior_hint="")] = None
    """Tokens of the cache or the window; needed with them."""
    keep: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """First tokens of the text that a cache never gives up; 4 suffice."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sgd"
    """sgd, momentum, adam, adam0 (without momentum), adamw, rmsprop, adagrad, lion (optax); or rms: the gradient over its root mean square
    on training text (Krause et al. 2018), see --statistics."""
    lr: Annotated[float, tyro.conf.arg(metavar="RATE")] = 0.01
    """Learning rate; 0.01 suits sgd, the others want much less (adam: 1e-5)."""
    rates: Annotated[str | None, tyro.conf.arg(metavar="A,B,...", help_behavior_hint="")] = None
    """Learning rates to choose from, in place of --lr: the one that is best on the first --prefix predictions."""
    prefix: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Predictions that the rate is chosen on; the others are not looked at."""
    decay: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of the way back to the model as it was that is gone at every update."""
    statistics: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Root mean square of the gradient for --optimizer rms, kept beside the model; made from --training where the file is not there yet."""
    training: Annotated[str | None, tyro.conf.arg(metavar="REF", help_behavior_hint="")] = None
    """Text like the model's training text; --batches of one chunk of it make the statistics."""
    batches: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Of --training."""
    adapt: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SELECTOR", help_behavior_hint="(default: all; blocks.mlp with --rank)"
        ),
    ] = None
    """Which parameters change: all, blocks[10:20].mlp, head, ... joined by +."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R", help_behavior_hint="")] = None
    """Low-rank adapters beside the selected matrices change, in place of these."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Optimizer steps on every chunk."""
    every: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """The model changes after every K-th chunk only, by their mean gradient."""
    reset: Literal["never", "document", "change"] = "never"
    """When the model returns to where it began: change is where a detector finds that what was learnt no longer helps."""
    guard: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="")] = None
    """Adaptation ends when it has lost so many nats, all tokens together, against the unadapted model."""
    parallel: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """With --reset document: so many documents are read side by side, each with a copy of what adapts."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    static: bool = True
    """Also score the text with the unadapted model."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""
    mesh: Annotated[
        str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")
    ] = None
    """Several devices: how many along each axis; 1,8,1 divides parameters by width. One device if not given."""


@dataclasses.dataclass(frozen=True)
class Reactivate:
    """Scale up the MLP coefficients that a model uses least, without training.

    In each layer, those below a quantile of their mean size over the text are brought to the
    layer's mean (times a gain) by a change of weights: exactly in gated MLPs, roughly in plain
    ones. Measured before and after; the changed model is a Hugging Face folder.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model reference: hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """A new folder for the changed model; what was measured lies in it as reactivation.json."""
    ratio: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.5
    """The share of a layer's coefficients that is scaled, 0 to 1."""
    gain: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """They are brought to this many times the layer's mean."""
    control: Literal["none", "random"] = "none"
    """random: as many coefficients, but any, to compare with."""
    strength: Literal["equal", "entropy"] = "equal"
    """entropy: more of them where a layer's entropy is low, with SHARE as the mean over layers."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the random control."""
    length: Annotated[int, tyro.conf.arg(metavar="T")] = 512
    """Tokens of one window."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 1
    """Windows of one forward pass."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Fit a scaling law L(N, T) = E + A / N^a + B / T^b to the runs of a table, and say how far
    each model ends from it.

    The table is a CSV file whose first line names the columns N (parameters), T (training tokens)
    and loss (nats a token); a checkpoint a line. lmdyn report draws what was found.
    """

    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.csv")]
    """The runs."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    above: Annotated[float, tyro.conf.arg(metavar="N")] = 0.0
    """Fit models with more parameters than this; smaller ones are only held against the law."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the bootstrap that intervals come from."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Build the HTML page of a folder of rows, or of several folders beside one another.

    The page is one file that needs no network. It can be built again from the rows at any time.
    """

    folders: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="DIR...")]
    """Each holds the rows of lmdyn measure and lmdyn online, of a run or of a study, or folders that do."""
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE", help_behavior_hint="(default: DIR/report.html; needed for several)"
        ),
    ] = None
    """The page to write."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Pretrain a model, or train one further, into a run: checkpoints, log, measurements.

    What is trained on what is said by a Python file, --config FILE, whose config() returns a
    lmdyn.training.TrainConfig. The same command goes on with a run that was stopped.
    """


@dataclasses.dataclass(frozen=True)
class Plan:
    """Compile a run's training step for a mesh that is not there: bytes per device, FLOPs.

    Takes the same --config FILE as lmdyn train, and --mesh DATA,FSDP,TENSOR.
    """


@dataclasses.dataclass(frozen=True)
class Study:
    """Run a paper's whole experiment: rows, figures, claims and a report, in one folder.

    Which one is said by a Python file, --config FILE, whose config() returns a study of
    lmdyn.studies, such as configs/knowledge_entropy.py; the study's fields are then options too.
    The same command goes on with a study that was stopped.
    """


VERBS = {
    "measure": Measure,
    "online": Online,
    "report": Report,
    "train": Train,
    "plan": Plan,
    "reactivate": Reactivate,
    "gradients": Gradients,
    "study": Study,
    "scaling": Scaling,
}
