"""Compiles lmdyn's four programs for TPUs that are not here; a process of its own runs this.

    python -m tests.costs.tpu_programs v5e v5p v6e

prints `{chip: {program: bytes}}`: arguments and temporaries, as the chip's compiler says.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from lmdyn import metrics, models, online
from lmdyn.costs.topologies import smallest_topology, topology_devices
from lmdyn.data import Batch
from lmdyn.metrics.gradients import _compiled
from lmdyn.metrics.measure import _step, empty
from lmdyn.params import partition
from lmdyn.training import sharding, train_step

ROWS, LENGTH = 2, 128
MODEL = models.ModelConfig(
    vocab=256,
    width=128,
    depth=2,
    heads=2,
    kv_heads=1,
    head_width=64,
    mlp_width=128,
    positions=LENGTH,
    tied_head=True,
)


def programs(chip):
    """`(name, jitted, arguments)`, with shapes that lie on one device of the chip."""
    devices = topology_devices(chip, smallest_topology(chip, 1))
    mesh = sharding.make_mesh((1, 1, 1), devices)
    place = NamedSharding(mesh, PartitionSpec())
    here = lambda tree: jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )
    model = sharding.spread(models.LanguageModel(MODEL, models.Compute(dtype="bfloat16")), mesh)
    params, optimizer = models.shapes(MODEL), optax.sgd(0.1)
    array = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)
    rows = [array(jnp.int32, ROWS, LENGTH)] * 2 + [array(bool, ROWS, LENGTH)]
    batch = Batch(*rows, None)

    state = jax.eval_shape(lambda params: train_step.start(params, optimizer), params)
    step = jax.jit(train_step.make_step(model, optimizer), donate_argnums=0)
    yield "train", step, here((state, batch))

    metric = metrics.build("nll,knowledge_entropy,attention_entropy")
    before = jax.eval_shape(lambda params: empty(metric, model, params, batch), params)
    yield "measure", _step(metric, model), here((params, before, batch))

    part = partition(params, "blocks.mlp")
    trainable, rest = jax.eval_shape(part.split, params)
    adaptation = online.Adaptation(model, part, optimizer)
    carry = jax.eval_shape(lambda chosen: online.start(adaptation, chosen), trainable)
    chunks = online.chunk_stream(np.arange(2 * LENGTH), online.OnlineConfig(chunk=LENGTH))
    run = jax.jit(
        lambda rest, carry, chunks: online.adapt(adaptation, None, rest, carry, chunks),
        donate_argnums=1,
    )
    yield "online", run, here((rest, carry, chunks))

    norms = _compiled(model, ("attention", "mlp"), 4)
    yield "gradients", norms, here((params, *rows))


def main(chips):
    found = {}
    for chip in chips:
        for name, program, arguments in programs(chip):
            used = program.lower(*arguments).compile().memory_analysis()
            size = used.argument_size_in_bytes, used.temp_size_in_bytes
            found.setdefault(chip, {})[name] = size
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
