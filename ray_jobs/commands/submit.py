"""`psreid submit [--address URL] -- COMMAND...`: the same command, as a job of a Ray cluster or of Kubernetes."""

import argparse

from ray_jobs.cli import Command, Plan, Progress, Summary
from ray_jobs.submission.config import SubmitConfig


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "psreid submit [options] -- COMMAND ... [-- COMMAND ...]"
    where = parser.add_argument_group("where, and what travels")
    where.add_argument(
        "--address", metavar="URL", help="the cluster's dashboard, http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)"
    )
    where.add_argument(
        "--working-dir", metavar="FOLDER", help="whose modules and configs travel with the job (default: this one)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--no-wait", dest="wait", action="store_false", default=None, help="submit, and do not watch until it ends"
    )
    how.add_argument("--again", action="store_true", default=None, help="also run what has succeeded already")
    manifest = parser.add_argument_group("a manifest for KubeRay instead of a submission")
    manifest.add_argument("--kuberay", action="store_true", default=None, help="print a RayJob")
    manifest.add_argument("--cron", metavar="'M H D M W'", help="print a RayCronJob that runs at these times")
    manifest.add_argument("--time-zone", metavar="ZONE", help="of --cron, such as Europe/Berlin")
    manifest.add_argument("--namespace", metavar="NAME", help="Kubernetes namespace")
    manifest.add_argument("--image", metavar="IMAGE", help="of the head and the CPU workers")
    manifest.add_argument("--gpu-image", metavar="IMAGE", help="of the GPU workers")
    manifest.add_argument("--cpu-workers", type=int, metavar="N", help="at most (default: 8)")
    manifest.add_argument("--gpu-workers", type=int, metavar="N", help="at most (default: 4)")


def _run(config: SubmitConfig, progress: Progress) -> Summary:
    if config.prints_manifest:
        from ray_jobs.submission.kubernetes import print_manifest

        return print_manifest(config)
    from ray_jobs.submission.submit import run_submit

    return run_submit(config, progress)


def _plan(config: SubmitConfig) -> Plan:
    from ray_jobs.submission.submit import plan_submit

    return plan_submit(config)


COMMAND = Command(
    name="submit",
    help="Run a psreid command as a job of a Ray cluster.",
    config_class=SubmitConfig,
    add_arguments=_add_arguments,
    run=_run,
    plan=_plan,
)
