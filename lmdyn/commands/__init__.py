"""What the verbs of the command line do: check, read, compute, write, so that a mistake costs no
time.

One module a family of verbs; JAX is imported inside the verbs only, when the cheap mistakes are
ruled out.
"""

from lmdyn.commands.adapting import online
from lmdyn.commands.experiments import plan, report, study, train
from lmdyn.commands.laws import scaling
from lmdyn.commands.measuring import gradients, measure
from lmdyn.commands.reactivating import reactivate

__all__ = [
    "gradients",
    "measure",
    "online",
    "plan",
    "reactivate",
    "report",
    "scaling",
    "study",
    "train",
]
