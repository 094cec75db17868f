"""`psreid train foundation | psreid | irm | irmpp FRAMES... OUT`."""

import argparse
from collections.abc import Sequence
from typing import Any

from ray_jobs.cli import Command, Plan, Progress, Summary
from workflows.config import StepConfig
from workflows.train.config import FoundationConfig, PsReidTrainConfig
from workflows.train.irm_config import IrmTrainConfig


class _FramesThenOut(argparse.Action):
    """The last folder is OUT; with --config, both may be left to the file."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        folders = list(values or [])
        namespace.frames, namespace.out = (folders[:-1] or None, folders[-1]) if folders else (None, None)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=["foundation", "psreid", "irm", "irmpp"],
        help="foundation: a small model, whole, from random weights; psreid: the paper's two stages, on Ray Train; "
        "irm, irmpp: instruct-ReID, all six tasks, on Ray Train",
    )
    parser.add_argument(
        "frames", metavar="FRAMES... OUT", nargs="*", action=_FramesThenOut,
        help="frames folders with identities, masks and texts, then the folder of the run; or leave them to --config",
    )  # fmt: skip
    parser.add_argument("--preset", metavar="NAME", help="sizes of the model, or what to start from (default: tiny)")
    parser.add_argument("--seed", type=int, metavar="N", help="decides everything left to chance (default: 0)")
    parser.add_argument("--start-from", metavar="MODEL", help="a trained model whose weights the run starts from")
    foundation = parser.add_argument_group("foundation")
    foundation.add_argument("--steps", type=int, metavar="N", help="optimizer steps of the whole run (default: 4000)")
    foundation.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: 2)")
    psreid = parser.add_argument_group("psreid")
    psreid.add_argument("--stage1-steps", dest="stage1.steps", type=int, metavar="N", help="steps of the adapters")
    psreid.add_argument("--stage2-steps", dest="stage2.steps", type=int, metavar="N", help="steps of LoRA and decoder")
    psreid.add_argument("--workers", type=int, metavar="W", help="processes that share every batch (default: 1)")
    psreid.add_argument("--gpus-per-worker", type=int, metavar="G", help="0: CPUs and gloo (default), 1: GPUs and NCCL")
    psreid.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), help="DeepSpeed ZeRO (default: 0)")
    psreid.add_argument("--tracking-uri", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI)")
    psreid.add_argument("--register-as", metavar="NAME", help="registered model that the result becomes a version of")
    psreid.add_argument("--precision", choices=("bf16", "fp32"), help="of matrix products (default: bf16)")


def _config_class(options: argparse.Namespace) -> type[StepConfig]:
    if options.what in ("irm", "irmpp"):
        return IrmTrainConfig
    return FoundationConfig if options.what == "foundation" else PsReidTrainConfig


def _run(config: FoundationConfig | PsReidTrainConfig | IrmTrainConfig, progress: Progress) -> Summary:
    if isinstance(config, IrmTrainConfig):
        from workflows.train.irm_step import run_irm

        return run_irm(config, progress)
    if isinstance(config, FoundationConfig):
        from workflows.train.step import run_foundation

        return run_foundation(config, progress)
    from workflows.tracking.training import track_training
    from workflows.train.psreid import run_psreid

    return track_training(
        "train psreid", config, config.out, lambda listeners: run_psreid(config, progress, listeners=listeners)
    )


def _plan(config: FoundationConfig | PsReidTrainConfig | IrmTrainConfig) -> Plan:
    if isinstance(config, IrmTrainConfig):
        from workflows.train.irm_step import plan_irm

        return plan_irm(config)
    if isinstance(config, FoundationConfig):
        from workflows.train.step import plan_foundation

        return plan_foundation(config)
    from workflows.train.psreid import plan_psreid

    return plan_psreid(config)


COMMAND = Command(
    name="train",
    help="Train a model: foundation, psreid, irm, irmpp.",
    config_class=FoundationConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
    choose_config=_config_class,
)
