"""A whole command as one MLflow run: its settings, its code and data, the figures of its summary."""

from collections.abc import Callable
from dataclasses import replace

from workflows.progress import Summary
from workflows.storage import Folder
from workflows.tracking.config import TRACKING_SETTINGS, TrackedConfig, flat_settings, tracking_uri
from workflows.tracking.identity import code_identity, data_identity
from workflows.tracking.tracking import Tracking

FLUSH_AFTER_FAILURE_S = 5.0


def track_command(command: str, config: TrackedConfig, out: str, run: Callable[[], Summary]) -> Summary:
    """What `run` gives, and the same in MLflow where tracking is set; the summary tells how the sending went."""
    uri = tracking_uri(config)
    if uri is None:
        return run()
    folder = Folder(out)
    tracking = Tracking.open(uri, experiment=config.experiment, folder=folder)
    name = f"{command} {folder.uri.rstrip('/').rpartition('/')[2]}"
    tracked = tracking.run(name, tags=code_identity(command))
    tracked.parameters(flat_settings(config.model_dump(exclude=set(TRACKING_SETTINGS))))
    tracked.data(data_identity(config))
    try:
        with tracked.ending():
            summary = run()
            tracked.figures(0, {key: value for key, value in summary.figures.items() if not isinstance(value, str)})
            tracked.tags({"psreid.headline": summary.headline, "psreid.output": summary.output})
    except BaseException:
        tracking.close(FLUSH_AFTER_FAILURE_S)
        raise
    return replace(summary, details=[*summary.details, *tracking.close()])
