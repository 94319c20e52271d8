"""Where the time of gradient norms goes.

The parts of `metrics.gradient_norms` run each as a program of its own, beside what its products
cost alone.

    python scripts/benchmarks/profile_gradients.py --model gguf:MODEL.gguf

Prints CPU seconds, best of `--repeats`: products of the weights alone (as many operations as the
forward pass has), the forward pass, forward and backward of activations with no norm taken, and the
norms of each sequence by layer, attention and MLP.
"""

import argparse
import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import checkpoints, metrics
from lmdyn.allocator import keep_memory
from lmdyn.models import forward
from lmdyn.params.selectors import flatten


def best(run, *arguments, repeats: int):
    """CPU and wall seconds of the quickest call, compiled before."""
    run = jax.jit(run)
    jax.block_until_ready(run(*arguments))
    found = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(run(*arguments))
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(found)


def products(matrices, tokens: int):
    """`x W` with every matrix of every block, on inputs that depend on the products before."""

    def run(matrices):
        def block(carry, one):
            for w in one:
                carry = carry + (
                    jnp.full([tokens, w.shape[0]], 1e-3) + carry * 1e-9
                ) @ w @ jnp.full([w.shape[1], 1], 1e-3)
            return carry, None

        return jax.lax.scan(block, jnp.zeros([tokens, 1]), matrices)[0]

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="model reference, such as gguf:MODEL.gguf")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=40, help="of a sequence")
    parser.add_argument(
        "--span", type=int, default=8, help="tokens whose loss is taken, at the end"
    )
    parser.add_argument("--repeats", type=int, default=3)
    order = parser.parse_args()

    keep_memory()
    model, params = checkpoints.load(order.model)[:2]
    ids = np.random.default_rng(0).integers(
        0, model.config.vocab, (order.sequences, order.tokens + 1)
    )
    inputs, targets = ids[:, :-1], ids[:, 1:]
    span = np.arange(order.tokens) >= order.tokens - order.span + np.zeros(
        [order.sequences, 1], int
    )
    reader = model.clone(config=dataclasses.replace(model.config, vocab=order.tokens))

    def activations(params, inputs):
        def states(rows):
            return forward(
                reader, {**params, "embed": {"embedding": rows}}, jnp.arange(order.tokens)[None]
            ).states[0]

        final, back = jax.vjp(jax.vmap(states), params["embed"]["embedding"][inputs])
        return back(final)

    def norms(params, inputs, targets, span):
        return metrics.gradient_norms(
            model, params, inputs, targets, span, ("attention", "mlp"), most=order.span
        )

    matrices = [
        leaf
        for path, leaf in flatten(params).items()
        if path[0] == "blocks" and path[-1] == "kernel"
    ]
    operations = 2 * inputs.size * sum(leaf.size for leaf in matrices)
    parts = {
        "products of the weights alone": (products(matrices, inputs.size), matrices),
        "forward": (lambda params, inputs: forward(model, params, inputs).states, params, inputs),
        "forward, backward of activations": (activations, params, inputs),
        "norms of each sequence, by layer": (norms, params, inputs, targets, span),
    }
    print(
        f"{order.sequences} sequences of {order.tokens} tokens; {operations / 1e9:.0f} billion"
        " operations in the products of a forward pass"
    )
    for name, (run, *arguments) in parts.items():
        cpu, wall = best(run, *arguments, repeats=order.repeats)
        rate = (
            f"  {operations / cpu / 1e9:.0f} billion operations a CPU second"
            if run is parts["products of the weights alone"][0]
            else ""
        )
        print(f"{name:36s} {cpu:6.2f} s CPU  {wall:6.2f} s wall{rate}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
