"""What several verbs share: cheap checks, the set-up of JAX, what is printed."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmdyn.errors import InputError
from lmdyn.types import Row

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lmdyn.models import ModelConfig


def at_least(least: float, options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: it must be at least {least}")


def numbers(name: str, text: str) -> list[float]:
    """The numbers of `--NAME A,B,...`."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"--{name} {text}: give numbers joined by commas, such as 0.003,0.01,0.03"
        ) from None
    if not all(0 <= number < math.inf for number in found):
        raise InputError(f"--{name} {text}: each is 0 or a positive number")
    return found


def check_positions(config: "ModelConfig", length: int) -> None:
    if config.position == "learned" and length > config.positions:
        raise InputError(
            f"--length {length} exceeds the model's {config.positions} positions; use --length "
            f"{config.positions} or less"
        )


def mesh_of(options: Any, rows: int | None) -> "Mesh | None":
    """The mesh of `--mesh`; None for one device. `rows` must divide over it; one stream has none to
    divide.
    """
    if options.mesh is None:
        return None
    from lmdyn.training import sharding as meshes

    shape = meshes.parse_mesh(options.mesh)
    if rows is None and shape[0] > 1:
        raise InputError(
            f"--mesh {options.mesh}: one stream is adapted, which has no rows to divide; use"
            f" 1,{shape[0] * shape[1]},{shape[2]}"
        )
    mesh = meshes.make_mesh(shape)
    if rows is not None:
        meshes.check_batch(rows, mesh)
    return mesh


def set_up_jax() -> None:
    """Compiled programs are kept between runs, in the user's cache folder, unless the environment
    says where.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmdyn" / "jax"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written costs time, not the run
            return
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def show(rows: Sequence[Row]) -> None:
    """A line for each whole-model value, on stdout; for a metric that has none, a line for each
    site: the mean over layers, the lowest and the highest.
    """
    whole = {r["metric"] for r in rows if r["layer"] is None}
    layers: dict[tuple, list[Row]] = {}
    for r in rows:
        if r["layer"] is None:
            more = f"  (perplexity {r['perplexity']:.2f})" if "perplexity" in r else ""
            print(f"{_heading(r)} {r['value']:12.5g} {r['unit']}{more}", flush=True)
        elif r["metric"] not in whole:
            layers.setdefault((r["metric"], r["site"]), []).append(r)
    for found in layers.values():
        low, high = (choose(found, key=lambda r: r["value"]) for choose in (min, max))
        mean = sum(r["value"] for r in found) / len(found)
        print(
            f"{_heading(low)} {mean:12.5g} {low['unit']}  (mean of {len(found)} layers; lowest"
            f" {low['value']:.5g} in {low['layer']}, highest {high['value']:.5g} in"
            f" {high['layer']})",
            flush=True,
        )


def _heading(row: Row) -> str:
    return " ".join(filter(None, (row["metric"], row["site"]))).ljust(32)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
