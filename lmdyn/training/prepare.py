"""From a config to everything that a run needs; what can be wrong is found here, before anything is
written.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmdyn import checkpoints, data, metrics
from lmdyn.checkpoints import hub
from lmdyn.data import tokenizers
from lmdyn.errors import InputError, choose
from lmdyn.models import LanguageModel, init, shapes
from lmdyn.params import Adapters, Partition, low_rank, partition
from lmdyn.training import interventions, objectives
from lmdyn.training import sharding as meshes
from lmdyn.training import train_step as steps
from lmdyn.training.config import TrainConfig
from lmdyn.training.optimizer import make_optimizer
from lmdyn.types import Params, present


class Prepared(NamedTuple):
    """What a run is made of.

    Attributes:
      config: as given.
      model: spread over the mesh. tokenizer: of the run.
      mesh: of devices.
      optimizer: the whole chain.
      part: what is trained; None where that is everything.
      state: shapes and shardings of the state before the first step.
      first: makes that state.
      stream: the batches of this host.
      metric: what is watched, or None. held_out: its batches.
    """

    config: TrainConfig
    model: LanguageModel
    tokenizer: tokenizers.Tokenizer
    mesh: Mesh
    optimizer: optax.GradientTransformation
    part: Partition | Adapters | None
    state: steps.TrainState
    first: Any
    stream: data.TrainingStream
    metric: Any
    held_out: Any


def prepare(
    config: TrainConfig, tokenizer: tokenizers.Tokenizer | None = None, progress: bool = False
) -> Prepared:
    """Reads, checks and builds; allocates nothing on the devices yet, but for a model that is
    trained further.

    Args:
      config: the run.
      tokenizer: of a run that goes on; None makes the one that the config names.

    Raises:
      InputError: whatever is wrong with the config, the texts, the model or the mesh.
    """
    mesh = resolve_mesh(config.mesh)
    meshes.check_batch(config.data.batch, mesh, config.accumulate)
    metric, watched = None, None
    if config.evaluation is not None:
        metric, watched = (
            metrics.build(config.evaluation.metrics),
            data.documents(config.evaluation.data),
        )
    objectives.make(config.objective)
    for intervention in config.interventions:
        interventions.make(intervention)
        data.documents(intervention.data)
    texts = [data.documents(source.ref)[:: source.every] for source in config.data.sources]
    old = None if config.data.review is None else data.documents(config.data.review.ref)
    loaded = None
    if config.start is not None:
        loaded = checkpoints.load(config.start, config.compute)
        architecture, tokenizer = loaded.model.config, loaded.tokenizer
    else:
        architecture = present(config.model)
        tokenizer = tokenizer or make_tokenizer(config, texts)
    data.check_vocabulary(tokenizer, architecture)
    if config.data.length > architecture.positions:
        raise InputError(
            f"data.length={config.data.length} exceeds the model's {architecture.positions}"
            " positions; use at most that, or a model with more"
        )
    model = LanguageModel(architecture, config.compute)
    optimizer = make_optimizer(config.optimizer, config.steps)
    form = shapes(architecture)
    part = trained_part(config, form)
    model = meshes.spread(model, mesh) if mesh.size > 1 else model

    begin = lambda params: steps.start(params, optimizer, part)
    state = jax.eval_shape(begin, form)
    state = _with_shardings(state, mesh, architecture)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    if loaded is None:
        first = lambda: jax.jit(
            lambda: begin(init(LanguageModel(architecture), config.seed)), out_shardings=where
        )()
    else:
        params = meshes.shard(loaded.params, mesh, architecture)
        first = lambda: jax.jit(begin, out_shardings=where)(params)

    index, count = meshes.row_share(mesh)
    tokens = [
        data.store(text, tokenizer, cache=config.data.cache, progress=progress) for text in texts
    ]
    review = None
    if config.data.review is not None:
        again = data.store(present(old), tokenizer, cache=config.data.cache, progress=progress)
        review = data.MixReview(again, config.data.review.ratio, config.data.review.decay)
    stream = data.mix(
        [(one, source.weight) for one, source in zip(tokens, config.data.sources, strict=True)],
        data.Packing(
            config.data.length,
            config.data.batch,
            tokenizer.end_of_text,
            config.data.attend_across,
            config.data.predict_across,
        ),
        seed=config.seed,
        host=index,
        hosts=count,
        review=review,
        steps=config.steps,
    )
    if config.evaluation is None:
        return Prepared(
            config, model, tokenizer, mesh, optimizer, part, state, first, stream, None, None
        )
    rows = config.evaluation.batch or config.data.batch
    meshes.check_batch(rows, mesh)
    held_out = data.batches(
        present(watched), tokenizer, config.data.length, rows, config.evaluation.tokens, progress
    )
    return Prepared(
        config, model, tokenizer, mesh, optimizer, part, state, first, stream, metric, held_out
    )


def trained_part(config: TrainConfig, form: Params) -> Partition | Adapters | None:
    """What a run trains: everything (None), what its selector names, or adapters. Args: form:
    shapes of the parameters.

    Raises:
      InputError: a selector that matches nothing, or adapters that do not fit.
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
        return meshes.make_mesh([jax.device_count() // known if n == -1 else n for n in shape])
    return meshes.make_mesh(shape)


def make_tokenizer(config: TrainConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """The tokenizer that `config.data.tokenizer` names: `bytes`, `bpe:VOCAB`, `hf:ORG/NAME` or a
    file.

    Raises:
      InputError: it is none of these.
    """
    name = config.data.tokenizer
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
        return tokenizers.from_folder(
            hub.download(repository, revision or None, hub.TOKENIZER), repository
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return tokenizers.from_folder(path)
    if not path.exists() and "/" not in name and "." not in name:
        choose("data.tokenizer", name, ("bytes", "bpe:VOCAB", "hf:ORG/NAME", "PATH/tokenizer.json"))
    return tokenizers.from_file(path)


def _with_shardings(state: steps.TrainState, mesh: Mesh, architecture) -> steps.TrainState:
    """The shapes of a state, with where each array lies."""
    whole = NamedSharding(mesh, PartitionSpec())
    where = steps.TrainState(
        whole,
        meshes.param_shardings(state.params, mesh, architecture),
        None if state.frozen is None else meshes.param_shardings(state.frozen, mesh, architecture),
        meshes.state_shardings(state.optimizer, state.params, mesh, architecture),
    )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        where,
    )
