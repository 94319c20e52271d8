"""Training runs: a folder with everything that made a model, and its checkpoints.

    DIR/run.json             what is fixed at the start: model, tokenizer, config, data
    DIR/tokenizer.json DIR/provenance.jsonl     a line for every start of the process
    DIR/checkpoints/STEP/    one checkpoint: an Orbax folder per item (`params`, `optimizer`), and
    `checkpoint.json`:
                             position, shapes, and the size and checksum of every file

Anything else in DIR belongs to whoever trains. Names in `checkpoints` that are not numbers are
unfinished or being deleted.

A checkpoint gets its name last, when all its bytes are on the disk and its checksums are written:
what has a name is whole, whenever the process is killed. What was damaged afterwards is found by
its checksums. Several processes (`jax.distributed`) share the folder: all of them call every
function here that writes or restores, in the same order.
"""

from lmdyn.checkpoints.runs.manifest import DamagedError
from lmdyn.checkpoints.runs.restoring import read_params, restore, restore_latest
from lmdyn.checkpoints.runs.retention import Retention
from lmdyn.checkpoints.runs.run_folder import RunInfo, create, describe, latest, record, steps
from lmdyn.checkpoints.runs.saving import Checkpoints

__all__ = [
    "Checkpoints",
    "DamagedError",
    "Retention",
    "RunInfo",
    "create",
    "describe",
    "latest",
    "read_params",
    "record",
    "restore",
    "restore_latest",
    "steps",
]
