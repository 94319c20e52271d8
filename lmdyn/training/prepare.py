"""From a config to everything that a run needs.

What can be wrong is found here, before anything is written.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmdyn import checkpoints, data, metrics
from lmdyn.checkpoints import hub
from lmdyn.data import tokenizers
from lmdyn.data.windows import Windows
from lmdyn.errors import InputError, choose
from lmdyn.models import LanguageModel, ModelConfig, check_positions, init, shapes
from lmdyn.params import Adapters, Partition, low_rank, partition
from lmdyn.training import fit, interventions, objectives, sharding, train_step
from lmdyn.training.config import Data, TrainConfig
from lmdyn.training.optimizer import make_optimizer
from lmdyn.transforms import Measured
from lmdyn.types import Params, present


class Prepared(NamedTuple):
    """What a run consists of. Made by `prepare`.

    Attributes:
      config: as given.
      model: spread over the mesh, with the rematerialisation that should fit the device.
      remats: that one, and those to try if it does not.
      tokenizer: of the run.
      mesh: of devices.
      optimizer: the whole chain.
      part: what is trained; None if everything is.
      state: shapes and shardings of the state before the first step.
      first: makes that state.
      stream: the batches of this host.
      metric: what is measured during the run, or None.
      held_out: the batches it is measured on.
      objective: what a step minimises.
      changes: what the interventions of the config do.
    """

    config: TrainConfig
    model: LanguageModel
    remats: tuple[str, ...]
    tokenizer: tokenizers.Tokenizer
    mesh: Mesh
    optimizer: optax.GradientTransformation
    part: Partition | Adapters | None
    state: train_step.TrainState
    first: Any
    stream: data.TrainingStream
    metric: Any
    held_out: Any
    objective: Callable
    changes: list[Measured]


def prepare(
    config: TrainConfig, tokenizer: tokenizers.Tokenizer | None = None, progress: bool = False
) -> Prepared:
    """Reads, checks and builds what a run needs.

    Allocates nothing on the devices yet, except a model that is trained further.

    Args:
      config: the run.
      tokenizer: of a run that is resumed; None makes the one that the config names.
      progress: show a bar on standard error.

    Raises:
      InputError: whatever is wrong with the config, the texts, the model or the mesh.

    >>> import tempfile
    >>> from lmdyn.training import Data, Source
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "text.txt").write_text("a text of a few words, over and over; " * 20)
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> source = Source(f"text:{folder}/text.txt")
    >>> cache = str(folder / "tokens")
    >>> texts = Data((source,), length=16, batch=8, tokenizer="bytes", cache=cache)
    >>> prepared = prepare(TrainConfig(out="run", data=texts, steps=2, model=tiny))
    >>> prepared.part, next(iter(prepared.stream)).inputs.shape
    (None, (8, 16))
    """
    mesh = resolve_mesh(config.mesh)
    sharding.check_batch(config.data.batch, mesh, config.accumulate)
    # what the config names; a mistake is found before any work
    metric = None if config.evaluation is None else metrics.build(config.evaluation.metrics)
    objective = objectives.make(config.objective)
    changes = [interventions.make(intervention) for intervention in config.interventions]
    texts = _read_texts(config)
    loaded = None
    if config.start is not None:
        loaded = checkpoints.load(config.start, config.compute, end_of_text=config.end_of_text)
        architecture, tokenizer = loaded.model.config, loaded.tokenizer.with_bos(config.bos)
    else:
        architecture = present(config.model)
        tokenizer = tokenizer or make_tokenizer(config, texts.sources)
    data.check_vocabulary(tokenizer, architecture)
    check_positions(architecture, config.data.length, "data.length")

    # The state's shapes and shardings; nothing is allocated before `first` is called.
    optimizer = make_optimizer(config.optimizer, config.steps)
    form = shapes(architecture)
    part = trained_part(config, form)
    begin = lambda params: train_step.start(params, optimizer, part)
    state = with_shardings(jax.eval_shape(begin, form), mesh, architecture)
    shape = fit.step_shape(config, architecture, part, state)
    remats = fit.remats(config.compute.remat, shape, fit.room_here())
    compute = dataclasses.replace(config.compute, remat=cast(Any, remats[0]))
    model = LanguageModel(architecture, compute)
    model = sharding.spread(model, mesh) if mesh.size > 1 else model
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    if loaded is None:
        first = lambda: jax.jit(
            lambda: begin(init(LanguageModel(architecture), config.seed)), out_shardings=where
        )()
    else:
        params = sharding.shard(loaded.params, mesh, architecture)
        first = lambda: jax.jit(begin, out_shardings=where)(params)

    stream = _make_stream(config, texts, tokenizer, mesh, progress)
    held_out = _hold_out(config, texts, tokenizer, mesh, progress)
    return Prepared(
        config,
        model,
        remats,
        tokenizer,
        mesh,
        optimizer,
        part,
        state,
        first,
        stream,
        metric,
        held_out,
        objective,
        changes,
    )


class _Texts(NamedTuple):
    """The texts of a run: of its sources, to review, and held out."""

    sources: list[Any]
    review: Any
    held_out: Any


def _read_texts(config: TrainConfig) -> _Texts:
    """Opens all texts."""
    held_out = None if config.evaluation is None else data.documents(config.evaluation.data)
    data.check_texts(intervention.data for intervention in config.interventions)
    sources = [data.documents(source.ref)[:: source.every] for source in config.data.sources]
    review = None if config.data.review is None else data.documents(config.data.review.ref)
    return _Texts(sources, review, held_out)


def _make_stream(
    config: TrainConfig, texts: _Texts, tokenizer: tokenizers.Tokenizer, mesh: Mesh, progress: bool
) -> data.TrainingStream:
    """The batches of this host; texts are tokenised, or found on disk."""
    index, count = sharding.row_share(mesh)
    store = lambda text: data.store(text, tokenizer, cache=config.data.cache, progress=progress)
    tokens = [store(text) for text in texts.sources]
    review = None
    if config.data.review is not None:
        again = store(present(texts.review))
        review = data.MixReview(again, config.data.review.ratio, config.data.review.decay)
    return data.mix(
        [(one, source.weight) for one, source in zip(tokens, config.data.sources, strict=True)],
        packing(config.data, tokenizer),
        seed=config.seed,
        host=index,
        hosts=count,
        review=review,
        steps=config.steps,
    )


def packing(texts: Data, tokenizer: tokenizers.Tokenizer) -> data.Packing:
    """How a run's documents become batches of windows.

    Args:
      texts: the run's.
      tokenizer: says what ends a document, and what a window begins with.

    >>> packing(Data(sources=(), length=4, batch=2), tokenizers.byte_tokenizer()).end_of_text
    256
    """
    return data.Packing(
        texts.length,
        texts.batch,
        tokenizer.end_of_text,
        texts.attend_across,
        texts.predict_across,
        tokenizer.window_token,
    )


def _hold_out(
    config: TrainConfig, texts: _Texts, tokenizer: tokenizers.Tokenizer, mesh: Mesh, progress: bool
) -> Windows | None:
    """The batches that are measured during the run; None if nothing is."""
    if config.evaluation is None:
        return None
    rows = config.evaluation.batch or config.data.batch
    sharding.check_batch(rows, mesh)
    windows = (config.data.length, rows, config.evaluation.tokens)
    return data.batches(texts.held_out, tokenizer, *windows, progress)


def trained_part(config: TrainConfig, form: Params) -> Partition | Adapters | None:
    """What a run trains: everything (None), what its selector names, or adapters.

    Raises:
      InputError: a selector that matches nothing, or adapters that do not fit.

    >>> from lmdyn.training import Data, Source
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> config = TrainConfig(
    ...     out="run", data=texts, steps=2, model=tiny, train="blocks[1].mlp.up"
    ... )
    >>> part = trained_part(config, shapes(tiny))
    >>> {".".join(path): layers for path, layers in part.chosen.items()}
    {'blocks.mlp.up.kernel': (1,)}
    """
    if config.adapters is None:
        return None if config.train == "all" else partition(form, config.train)
    where = config.adapters
    return low_rank(where.where, rank=where.rank, scale=where.scale, seed=config.seed).partition(
        form
    )


def resolve_mesh(shape: tuple[int, int, int]) -> Mesh:
    """The mesh of a config's `mesh`; a -1 becomes what the devices leave.

    >>> dict(resolve_mesh((1, 1, 1)).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise InputError(
            f"mesh {','.join(map(str, shape))}: write three numbers >= 1, of which one may be -1"
            " (what is left)"
        )
    known = 1
    for n in shape:
        known *= max(n, 1)
    if -1 in shape:
        if jax.device_count() % known:
            raise InputError(
                f"mesh {','.join(map(str, shape))}: {known} does not divide the"
                f" {jax.device_count()} devices"
            )
        return sharding.make_mesh([jax.device_count() // known if n == -1 else n for n in shape])
    return sharding.make_mesh(shape)


def make_tokenizer(config: TrainConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """The tokenizer that `config.data.tokenizer` names.

    `bytes`, `bpe:VOCAB`, `hf:ORG/NAME` or a file; with the run's special tokens.

    Args:
      config: of the run.
      texts: what a new tokenizer is trained on; each a sequence of documents.

    Raises:
      InputError: it is none of these, or has no such token.

    >>> from lmdyn.training import Data, Source
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8, tokenizer="bytes")
    >>> config = TrainConfig(out="run", data=texts, steps=2, start="dir:model")
    >>> make_tokenizer(config, []).encode("hi").tolist()
    [104, 105]
    """
    found = _read_tokenizer(config.data.tokenizer, texts, config.end_of_text)
    return found.with_end_of_text(config.end_of_text).with_bos(config.bos)


def _read_tokenizer(
    name: str, texts: Iterable[str], end_of_text: str | None
) -> tokenizers.Tokenizer:
    kind, _, rest = name.partition(":")
    if name == "bytes":
        return tokenizers.byte_tokenizer()
    if kind == "bpe":
        if not rest.isdecimal():
            raise InputError(f"data.tokenizer='{name}': write bpe:VOCAB, such as bpe:8192")
        return tokenizers.train_bpe(
            (document for text in texts for document in text), int(rest), name=name
        )
    if kind == "hf":
        repository, _, revision = rest.partition("@")
        folder = hub.download(repository, revision or None, tokenizers.FILES)
        return tokenizers.from_folder(folder, repository, end_of_text)
    path = Path(name).expanduser()
    if path.is_dir():
        return tokenizers.from_folder(path, end_of_text=end_of_text)
    if not path.exists() and "/" not in name and "." not in name:
        choose("data.tokenizer", name, ("bytes", "bpe:VOCAB", "hf:ORG/NAME", "PATH/tokenizer.json"))
    return tokenizers.from_file(path, end_of_text)


def with_shardings(
    state: train_step.TrainState, mesh: Mesh, architecture: ModelConfig
) -> train_step.TrainState:
    """The shapes of a state, with the sharding of each array.

    Args:
      state: shapes.
      mesh: of devices.
      architecture: of the model.

    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> import jax.numpy as jnp
    >>> state = train_step.TrainState(jnp.int32(0), shapes(tiny), None, ())
    >>> placed = with_shardings(state, resolve_mesh((1, 1, 1)), tiny)
    >>> placed.params["blocks"]["mlp"]["up"]["kernel"].sharding.spec  # whole on the one device
    P()
    """
    whole = NamedSharding(mesh, PartitionSpec())
    where = train_step.TrainState(
        whole,
        sharding.param_shardings(state.params, mesh, architecture),
        None
        if state.frozen is None
        else sharding.param_shardings(state.frozen, mesh, architecture),
        sharding.state_shardings(state.optimizer, state.params, mesh, architecture),
    )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        where,
    )
