"""What the verbs of the command line do: check, read, compute, write, so that a mistake costs no
time.

One module a family of verbs; JAX is imported inside the verbs only, when the cheap mistakes are
ruled out.
"""

from lmdyn.cli.experiments import plan, report, study, train
from lmdyn.cli.measuring import gradients, measure
from lmdyn.cli.online import online
from lmdyn.cli.reactivate import reactivate
from lmdyn.cli.scaling import scaling

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
