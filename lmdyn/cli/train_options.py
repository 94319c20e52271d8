"""What `lmdyn train` and `lmdyn plan` take beside the config file."""

import dataclasses
from typing import Annotated, Literal, Self

import tyro

from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.training.config import Data, Evaluation, Source, TrainConfig

Planned = Literal["v5e", "v5p", "v6e", "l4", "a100", "h100", "h200", "b200"]


def _example() -> TrainConfig:
    """What the help shows as defaults, where there is no config file."""
    model = ModelConfig(
        vocab=257, width=128, depth=4, heads=4, head_width=32, mlp_width=512, positions=512
    )
    data = Data(sources=(Source("builtin:docs:train"),))
    return TrainConfig(
        data=data,
        steps=1000,
        out="runs/NAME",
        model=model,
        evaluation=Evaluation("builtin:docs:test"),
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Pretrain a model, or train one further, into a run: checkpoints, log, measurements.

    --config FILE is a Python file whose config() returns a lmdyn.training.TrainConfig; options
    given beside it override its fields. The same command resumes a run that was stopped.
    """

    run: Annotated[TrainConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
    hosts: Literal["one", "auto"] = "one"
    """auto: several processes that find each other (TPU pod, Slurm, Open MPI)."""
    coordinator: Annotated[
        str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="")
    ] = None
    """Several processes, started by hand: where process 0 is."""
    processes: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """How many processes there are."""
    process: Annotated[int | None, tyro.conf.arg(metavar="I", help_behavior_hint="")] = None
    """Which of them this one is, from 0."""

    @classmethod
    def example(cls) -> Self:
        """Options to show in the help."""
        return cls(run=_example())

    def __post_init__(self) -> None:
        by_hand = (self.coordinator, self.processes, self.process)
        if any(value is not None for value in by_hand) and None in by_hand:
            raise InputError(
                "--coordinator, --processes and --process go together; give all three, or --hosts"
                " auto"
            )
        if self.coordinator is not None and self.hosts == "auto":
            raise InputError(
                "--hosts auto finds the other processes itself; leave out --coordinator,"
                " --processes and --process"
            )


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """Compile a run's training step ahead of time, for devices you do not have: bytes, FLOPs.

    Takes the same --config FILE as lmdyn train, and the same options; --mesh 4,8,2 says which mesh.
    Nothing is trained, read or written.
    """

    run: Annotated[TrainConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
    device: Annotated[Planned | None, tyro.conf.arg(help_behavior_hint="")] = None
    """The device; for a TPU, its own compiler says what it takes, where libtpu is installed."""
    topology: Annotated[str | None, tyro.conf.arg(metavar="4x8", help_behavior_hint="")] = None
    """The slice of TPUs; by default the smallest with as many devices as --mesh says."""
    search: bool = False
    """Try all meshes of so many devices, rematerialisation and accumulation; plan the fastest."""

    @classmethod
    def example(cls) -> Self:
        """Options to show in the help."""
        return cls(run=_example())

    def __post_init__(self) -> None:
        if self.device is None and (self.search or self.topology is not None):
            asked = "--search" if self.search else f"--topology {self.topology}"
            raise InputError(f"{asked} needs a device to plan for; add one, such as --device v5e")
