"""One mesh of devices, and how parameters and batches are sharded over it.

The mesh has three axes. The rows of a batch are divided over `data` and `fsdp` together. Parameters
are copied along `data`, divided by model width along `fsdp` (each device gathers a layer just
before it needs it), and along `tensor` by heads, MLP width and vocabulary, so that one product is
shared by several devices. `AXIS_RULES` says which.

Nothing here changes what is computed: the same jitted functions run on one device or on a mesh,
because `jax.jit` follows the shardings of its arguments.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmdyn.errors import InputError
from lmdyn.models import LanguageModel, ModelConfig
from lmdyn.types import Device, Tree

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")
"""The axes over which the rows of a batch are divided."""

AXIS_RULES = (
    ("embed", ("tensor", "fsdp")),
    ("positions", (None, "fsdp")),
    ("head", ("fsdp", "tensor")),
    ("blocks.attention.query", ("fsdp", "tensor")),
    ("blocks.attention.key", ("fsdp", "tensor")),
    ("blocks.attention.value", ("fsdp", "tensor")),
    ("blocks.attention.output", ("tensor", "fsdp")),
    ("blocks.mlp.gate", ("fsdp", "tensor")),
    ("blocks.mlp.up", ("fsdp", "tensor")),
    ("blocks.mlp.down", ("tensor", "fsdp")),
    ("", ()),
)
"""Selector, and the mesh axis of each dimension of the matrices below it.

The first that fits is taken. The leading layer axis is never divided. A bias is divided like the
outputs it is added to if that is along `tensor`; biases and norms of model width are small and lie
whole on every device, as does everything that no rule names."""

HEAD_COUNTS = {"query": "heads", "key": "kv_heads", "value": "kv_heads", "output": "heads"}
"""Attention matrices are divided between heads, never inside one: the field that counts them."""


def parse_mesh(text: str) -> tuple[int, int, int]:
    """`"data,fsdp,tensor"` as three numbers; missing ones are 1.

    Raises:
      InputError: it is not a mesh.

    >>> parse_mesh("4,8,2"), parse_mesh("8")
    ((4, 8, 2), (8, 1, 1))
    """
    parts = [part.strip() for part in str(text).split(",")]
    if not 1 <= len(parts) <= len(AXES) or not all(
        part.isdecimal() and int(part) for part in parts
    ):
        raise InputError(
            f"mesh '{text}' cannot be read; write up to three numbers >= 1, data,fsdp,tensor, such"
            " as 4,8,2"
        )
    data, fsdp, tensor = [int(part) for part in parts] + [1] * (len(AXES) - len(parts))
    return data, fsdp, tensor


def make_mesh(
    shape: Sequence[int] | None = None, devices: "Sequence[Device] | None" = None
) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `tensor`.

    Args:
      shape: devices along each axis; all of them along `data` if None.
      devices: those to use; all of JAX's if None. One process may use fewer than it has: the first
        ones are taken. Several processes use all, so that each has its share.

    Raises:
      InputError: the shape needs other devices than there are.

    >>> dict(make_mesh((1, 1, 1), jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    >>> make_mesh((4, 8, 2), jax.devices()[:1])
    Traceback (most recent call last):
    lmdyn.errors.InputError: mesh 4,8,2 needs 64 devices, and there is 1; use a mesh whose numbers
    multiply to 1 or less
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = (len(devices), 1, 1) if shape is None else tuple(int(n) for n in shape)
    if len(shape) != len(AXES) or min(shape) < 1:
        raise InputError(
            f"mesh {shape} has no three numbers >= 1; write data, fsdp and tensor, such as (4,"
            " 8, 2)"
        )
    count, text = math.prod(shape), ",".join(map(str, shape))
    if count > len(devices):
        there = "there is 1" if len(devices) == 1 else f"there are {len(devices)}"
        raise InputError(
            f"mesh {text} needs {count} devices, and {there}; use a mesh whose numbers multiply to"
            f" {len(devices)} or less"
        )
    hosts = len({device.process_index for device in devices})
    if count < len(devices) and hosts > 1:
        raise InputError(
            f"mesh {text} uses {count} of the {len(devices)} devices of {hosts} hosts; use a mesh"
            f" whose numbers multiply to {len(devices)}"
        )
    # On a TPU neighbours in the mesh are neighbours in the torus of chips.
    devices = devices[:count]
    if devices[0].platform == "tpu":
        from jax.experimental import mesh_utils

        placed = mesh_utils.create_device_mesh(
            shape, devices=devices, allow_split_physical_axes=True
        )
    else:  # in the order JAX counts them: the last axis, which talks most, stays inside one machine
        placed = np.array(devices).reshape(shape)
    return Mesh(placed, AXES)


def _names(path) -> tuple[str, ...] | None:
    """A tree path as names, without the number of a stack of blocks.

    None if something else than dicts is in it.
    """
    names = []
    for key in path:
        if isinstance(key, jax.tree_util.DictKey):
            names.append(str(key.key))
        elif not isinstance(key, jax.tree_util.SequenceKey):
            return None
    return tuple(names)


def _place(names, shape, mesh: Mesh, config: ModelConfig | None) -> tuple[PartitionSpec, list[str]]:
    """The sharding of one parameter, and why a part of its rule was not followed."""
    # The first rule whose name begins the parameter's; dimensions before its axes are whole.
    path = ".".join(names)
    axes = next(
        axes for rule, axes in AXIS_RULES if not rule or path == rule or path.startswith(f"{rule}.")
    )
    if names[-1] == "bias":
        axes = tuple(axis for axis in axes[-1:] if axis == "tensor")
    axes = (None,) * (len(shape) - len(axes)) + axes
    # A dimension is divided if its axis divides it: attention's by whole heads.
    found, notes = [], []
    for size, axis in zip(shape, axes, strict=True):
        if axis is None or mesh.shape[axis] == 1:
            found.append(None)
            continue
        unit = "numbers"
        if config is not None and axis == "tensor" and names[1:2] == ("attention",):
            size, unit = getattr(config, HEAD_COUNTS[names[2]]), HEAD_COUNTS[names[2]]
        divides = size % mesh.shape[axis] == 0
        found.append(axis if divides else None)
        if not divides:
            notes.append(f"{path}: {size} {unit} are not a multiple of {axis}={mesh.shape[axis]}")
    while found and found[-1] is None:
        found.pop()
    return PartitionSpec(*found), notes


def _placed(params, mesh: Mesh, config: ModelConfig | None):
    """Every leaf's place, as `[(spec, notes)]`, and the tree's structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    found = []
    for path, leaf in leaves:
        names = _names(path)
        found.append(_place(names, leaf.shape, mesh, config) if names else (PartitionSpec(), []))
    return found, structure


def param_specs(params: Tree, mesh: Mesh, config: ModelConfig | None = None) -> Tree:
    """How each parameter is sharded, by `AXIS_RULES`.

    A dimension that its axis does not divide stays whole, so that every model runs on every mesh
    (`uneven` lists them).

    Args:
      params: parameters, or their shapes (`lmdyn.models.shapes`), or a part of them; blocks as one
        stack or several. Quantised matrices are replicated.
      mesh: the mesh, or an abstract one.
      config: with it, attention is divided between whole heads. Without it, a matrix may be cut
        inside a head, which is right but slower.

    Returns:
      The same tree, of `PartitionSpec`s.

    >>> mesh = jax.sharding.AbstractMesh((1, 2, 2), AXES)
    >>> up = jax.ShapeDtypeStruct((3, 24, 36), "float32")
    >>> param_specs({"blocks": {"mlp": {"up": {"kernel": up}}}}, mesh)
    {'blocks': {'mlp': {'up': {'kernel': P(None, 'fsdp', 'tensor')}}}}
    """
    found, structure = _placed(params, mesh, config)
    return structure.unflatten([spec for spec, _ in found])


def param_shardings(params: Tree, mesh: Mesh, config: ModelConfig | None = None) -> Tree:
    """`param_specs` as `NamedSharding`s, for `jax.device_put`, `jax.jit` and Orbax.

    >>> params = {"final_norm": {"scale": jax.ShapeDtypeStruct((24,), "float32")}}
    >>> found = param_shardings(params, make_mesh((1, 1, 1), jax.devices()[:1]))
    >>> found["final_norm"]["scale"].is_fully_replicated
    True
    """
    found, structure = _placed(params, mesh, config)
    return structure.unflatten([NamedSharding(mesh, spec) for spec, _ in found])


def uneven(params: Tree, mesh: Mesh, config: ModelConfig | None = None) -> list[str]:
    """What stays whole although a rule would divide it, a line each.

    >>> mesh = jax.sharding.AbstractMesh((1, 1, 2), AXES)
    >>> uneven({"embed": {"embedding": jax.ShapeDtypeStruct((61, 24), "float32")}}, mesh)
    ['embed.embedding: 61 numbers are not a multiple of tensor=2']
    """
    return [note for _, notes in _placed(params, mesh, config)[0] for note in notes]


def state_shardings(
    tree: Tree, params: Tree, mesh: Mesh, config: ModelConfig | None = None
) -> Tree:
    """How everything in a tree that holds copies of `params` is sharded.

    An optax state, gradients, a whole train state.

    A leaf whose path ends like a parameter's, and which has its shape, lies where that parameter
    lies (moments, averages, accumulated gradients). Everything else (counts, schedules, one number
    per layer) is replicated.

    Args:
      tree: the state, or its shapes (`jax.eval_shape(optimizer.init, params)`).
      params: the parameters it was made for, or their shapes.
      mesh: the mesh.
      config: see `param_specs`.

    Returns:
      The same tree, of `NamedSharding`s.

    >>> import optax
    >>> mesh = jax.sharding.AbstractMesh((1, 2, 1), AXES)
    >>> params = {"embed": {"embedding": jax.ShapeDtypeStruct((61, 24), "float32")}}
    >>> state = jax.eval_shape(optax.adam(1e-3).init, params)
    >>> [place.spec for place in jax.tree.leaves(state_shardings(state, params, mesh))]
    [P(), P(None, 'fsdp'), P(None, 'fsdp')]
    """
    found, _ = _placed(params, mesh, config)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    known = {
        (path, leaf.shape): spec for (path, leaf), (spec, _) in zip(leaves, found, strict=True)
    }

    def place(path, leaf):
        ends = (path[start:] for start in range(len(path)))
        spec = next(
            (known[end, leaf.shape] for end in ends if (end, leaf.shape) in known), PartitionSpec()
        )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch's arrays `[B, ...]` are sharded: rows over `data` and `fsdp`.

    >>> batch_sharding(jax.sharding.AbstractMesh((2, 2, 1), AXES)).spec
    P(('data', 'fsdp'),)
    """
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def spread(model: LanguageModel, mesh: Mesh) -> LanguageModel:
    """The model, with its activations held to the rows of the batch while parameters are divided.

    It computes the same, and is what makes `fsdp` work: left alone, the compiler divides
    activations by width as well, and adds them up over the devices after every product.

    >>> from lmdyn.models import ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> spread(model, jax.sharding.AbstractMesh((2, 2, 1), AXES)).batch_sharding.spec
    P(('data', 'fsdp'),)
    """
    return model.clone(batch_sharding=batch_sharding(mesh))


def check_batch(rows: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Checks that a batch can be divided: into `accumulate` parts, and each over the mesh.

    Raises:
      InputError: it cannot; the message names the nearest number that can.

    >>> check_batch(20, jax.sharding.AbstractMesh((4, 2, 1), AXES))
    Traceback (most recent call last):
    lmdyn.errors.InputError: a batch of 20 rows does not divide by data=4 x fsdp=2; use 16 or 24
    rows, or another mesh
    """
    parts = accumulate * math.prod(mesh.shape[axis] for axis in ROW_AXES)
    if rows < 1 or rows % parts:
        below, above = rows // parts * parts, -(-rows // parts) * parts
        use = f"{below} or {above}" if below > 0 else f"{max(above, parts)}"
        by = " x ".join(
            [f"data={mesh.shape['data']}", f"fsdp={mesh.shape['fsdp']}"]
            + [f"accumulate={accumulate}"] * (accumulate > 1)
        )
        raise InputError(
            f"a batch of {rows} rows does not divide by {by}; use {use} rows, or another mesh"
        )


def row_share(mesh: Mesh) -> tuple[int, int]:
    """`(index, count)`: this process reads number `index` of `count` equal runs of rows.

    Processes that share rows, because the `tensor` axis spans them, have the same index and read
    the same rows.

    >>> row_share(make_mesh((1, 1, 1), jax.devices()[:1]))
    (0, 1)
    """
    owners: dict[int, list[int]] = {}
    rows = mesh.devices.reshape(-1, mesh.shape["tensor"])
    for row, devices in enumerate(rows):
        for process in {device.process_index for device in devices}:
            owners.setdefault(process, []).append(row)
    runs = sorted({tuple(found) for found in owners.values()})
    if sorted(row for run in runs for row in run) != list(range(len(rows))):
        raise InputError(
            f"mesh {','.join(map(str, mesh.devices.shape))} divides rows and hosts against each"
            " other; use a tensor axis that divides, or is a multiple of, the"
            f" {jax.local_device_count()} devices of a host"
        )
    return runs.index(tuple(owners.get(jax.process_index(), ()))), len(runs)


def put_batch(batch: Tree, mesh: Mesh) -> Tree:
    """This process's rows of a batch, put on its devices as a part of the whole batch.

    Args:
      batch: a tree of NumPy arrays `[B / count, ...]` (see `row_share`; with one process, the whole
        batch).
      mesh: the mesh.

    Returns:
      The same tree, of global arrays `[B, ...]`.

    >>> put_batch({"inputs": np.ones([4, 3])}, make_mesh((1, 1, 1), jax.devices()[:1]))[
    ...     "inputs"
    ... ].shape
    (4, 3)
    """
    place, count = batch_sharding(mesh), row_share(mesh)[1]
    put = lambda rows: jax.make_array_from_process_local_data(
        place, np.asarray(rows), (rows.shape[0] * count, *rows.shape[1:])
    )
    return jax.tree.map(put, batch)


def put(tree: Tree, shardings: Tree) -> Tree:
    """Places a tree on devices as `shardings` says.

    With several processes, each holds the whole tree and contributes its own part.

    >>> mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    >>> put({"x": np.ones(3)}, {"x": NamedSharding(mesh, PartitionSpec())})["x"].sharding.spec
    P()
    """

    def one(leaf, sharding):
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def shard(params: Tree, mesh: Mesh, config: ModelConfig | None = None) -> Tree:
    """Parameters, divided over the mesh.

    >>> shard({"head": {"kernel": np.ones([4, 6])}}, make_mesh((1, 1, 1), jax.devices()[:1]))[
    ...     "head"
    ... ]["kernel"].shape
    (4, 6)
    """
    return put(params, param_shardings(params, mesh, config))


def bytes_per_device(tree: Tree) -> dict[Device, int]:
    """Bytes that a tree of arrays really takes on each device of this process.

    >>> list(bytes_per_device({"a": jax.numpy.ones([5, 3])}).values())
    [60]
    """
    found: dict[Device, int] = {}
    for leaf in jax.tree.leaves(tree):
        for part in leaf.addressable_shards:
            found[part.device] = found.get(part.device, 0) + part.data.nbytes
    return found
