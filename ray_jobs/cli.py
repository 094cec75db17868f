"""The command line `psreid <command>`: settings from file, flags and `--set`; exit codes; one plain last line.

Each command is a module of `ray_jobs.commands` that exposes `COMMAND`. A flag's argparse `dest` is the config key it
sets (dotted where nested) and its default is None, so that "not given" never overrides a config file. Modules are
imported when their command is used, and they import their step only when they run, so `--help` answers at once.
"""

import argparse
import difflib
import importlib
import json
import keyword
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeling.errors import PsreidError
from ray_jobs.logs import JsonFormatter, LogProgress
from workflows.config import StepConfig, check_settings, read_settings
from workflows.plan.layout import lay_out
from workflows.plan.shapes import ClusterConfig
from workflows.progress import BarProgress, Plan, Progress, Summary

__all__ = ["Command", "Plan", "Progress", "Summary", "main"]

COMMANDS = (
    "synth",
    "import",
    "ingest",
    "index",
    "search",
    "report",
    "evaluate",
    "evaluate-reid",
    "evaluate-reid-table",
    "train",
    "sweep",
    "tracking",
    "submit",
    "jobs",
    "status",
    "bench",
    "doctor",
)
WRAPPING = frozenset({"submit"})  # commands whose words after `--` are another command
RESERVED = frozenset({"command", "config_file", "sets", "dry_run", "as_json", "debug", "quiet", "log_json"})
CLUSTER = "cluster"  # the section that every command's settings may have
INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """One verb of the command line."""

    name: str
    help: str
    config_class: type[StepConfig]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any, Progress], Summary]
    plan: Callable[[Any], Plan]
    choose_config: Callable[[argparse.Namespace], type[StepConfig]] | None = None
    """Where the flags decide which settings there are; the others' flags are then refused as unknown settings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 1 failed, 2 bad input or config, 130 interrupted."""
    arguments = _one_word_command(sys.argv[1:] if argv is None else argv)
    commands = _commands_for(arguments)
    options = _parse(_build_parser(commands.values()), arguments)
    _set_up_output(debug=options.debug, as_json=options.log_json)
    try:
        return _run(commands[options.command], options)
    except KeyboardInterrupt:
        _tell("interrupted: run the same command again to continue.")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the reader of our stdout has gone)
        return 1
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return _report_error(error, as_json=options.as_json)


def read_command(arguments: Sequence[str]) -> tuple[argparse.Namespace, StepConfig, list[str]]:
    """A command's options, its config, and the settings that its positional arguments fill; runs nothing.

    A wrong command line ends the program with exit code 2, a wrong setting raises ConfigError.
    """
    arguments = _one_word_command(arguments)
    commands = _commands_for(arguments)
    parser = _build_parser(commands.values())
    options = _parse(parser, list(arguments))
    actions = _verbs(parser)[options.command]._actions
    positional = [action.dest for action in actions if not action.option_strings and not action.choices]
    return options, _config_of(commands[options.command], options)[0], positional


def _one_word_command(arguments: Sequence[str]) -> list[str]:
    """`evaluate reid` is a command of its own, and with --table another: it takes a table's frames and no model."""
    words = ["evaluate-reid", *arguments[2:]] if list(arguments[:2]) == ["evaluate", "reid"] else list(arguments)
    if words[:1] == ["evaluate-reid"] and any(word.partition("=")[0] == "--table" for word in words):
        words[0] = "evaluate-reid-table"
    return words


def _commands_for(arguments: Sequence[str]) -> dict[str, Command]:
    names = [arguments[0]] if arguments and arguments[0] in COMMANDS else list(COMMANDS)
    return {name: command for name in names if (command := _load(name)) is not None}


def _config_of(command: Command, options: argparse.Namespace) -> tuple[StepConfig, ClusterConfig]:
    """The settings of the command, and what it runs on."""
    flags = {key: value for key, value in vars(options).items() if key not in RESERVED}
    settings = read_settings(options.config_file, flags, options.sets)
    cluster = check_settings(ClusterConfig, settings.pop(CLUSTER, None) or {})
    config_class = command.choose_config(options) if command.choose_config else command.config_class
    return _pinned(check_settings(config_class, settings)), cluster


def _run(command: Command, options: argparse.Namespace) -> int:
    config, cluster = _config_of(command, options)
    if options.dry_run:
        report = lay_out(command.plan(config), cluster)
        print(json.dumps(report.plain(), default=str) if options.as_json else "\n".join(report.lines()))
        return 0
    progress = _progress(options)
    progress.price = cluster.price()
    try:
        summary = command.run(config, progress)
    finally:
        progress.finish()
    _print_summary(summary, as_json=options.as_json)
    return summary.exit_code


def _progress(options: argparse.Namespace) -> Progress:
    if options.log_json:
        return LogProgress()
    return Progress() if options.quiet else BarProgress()


def _pinned(config: StepConfig) -> StepConfig:
    """Aliases of a Model Registry become versions here, once for the whole command."""
    from workflows.tracking.registry import pin_models

    return pin_models(config)


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        record: Mapping[str, Any] = summary.record or {
            "headline": summary.headline,
            "output": summary.output,
            **summary.figures,
        }
        print(json.dumps(record, default=str))
        return
    for line in (*summary.details, summary.headline):
        print(line)


def _report_error(error: Exception, *, as_json: bool) -> int:
    """Says what went wrong in one line, without a traceback, and returns the exit code."""
    known = isinstance(error, PsreidError)
    message = str(error) if known else f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
    if as_json:
        print(json.dumps({"error": message, "kind": type(error).__name__}))
    _tell(f"error: {message}")
    return error.exit_code if isinstance(error, PsreidError) else 1


def _tell(line: str) -> None:
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        logging.getLogger("psreid").error(line, extra={"fields": {"event": "ended"}})
    else:
        print(f"psreid: {line}", file=sys.stderr, flush=True)


def _set_up_output(*, debug: bool, as_json: bool) -> None:
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="psreid: %(message)s", force=True)
    if as_json:
        logging.getLogger().handlers[0].setFormatter(JsonFormatter())
        logging.getLogger("psreid").setLevel(logging.DEBUG if debug else logging.INFO)
    for noisy in ("botocore", "aiobotocore", "s3fs", "fsspec", "asyncio", "urllib3", "PIL", "matplotlib", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if debug:
        os.environ["PSREID_DEBUG"] = "1"
    else:
        warnings.simplefilter("ignore")


def _build_parser(commands: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="psreid",
        description="Find a person in archived footage from a picture, a description or both.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input or config. Killed? Run the same command again.",
    )
    verbs = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in commands:
        verb = verbs.add_parser(command.name, help=command.help, description=command.help, allow_abbrev=False)
        command.add_arguments(verb)
        _add_shared_arguments(verb)
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The options; an unknown one ends the program with exit code 2 and the nearest known one."""
    wraps = arguments[:1] and arguments[0] in WRAPPING and "--" in arguments
    end = arguments.index("--") if wraps else len(arguments)
    options, unknown = parser.parse_known_args(arguments[:end])
    if wraps:
        options.words = arguments[end + 1 :]
    if unknown:
        known = list(_verbs(parser)[options.command]._option_string_actions)
        flags = [text for text in unknown if text.startswith("--")]
        near = difflib.get_close_matches(flags[0].partition("=")[0], known, n=1) if flags else []
        hint = f"; did you mean {near[0]}?" if near else f"; see psreid {options.command} --help"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return options


def _verbs(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return found[0]


def _add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    shared = parser.add_argument_group("every command")
    shared.add_argument("--config", dest="config_file", metavar="FILE", help="settings from a YAML file")
    shared.add_argument(
        "--set", dest="sets", metavar="KEY=VALUE", action="append", default=[], help="one setting; may be repeated"
    )
    shared.add_argument("--dry-run", action="store_true", help="print what would be done and how long it should take")
    shared.add_argument(
        "--json", dest="as_json", action="store_true", help="one JSON object on the last line of stdout"
    )
    shared.add_argument("--quiet", action="store_true", help="no progress bar")
    shared.add_argument(
        "--cluster-shape",
        dest="cluster.shape",
        metavar="NAME",
        help="what it runs on: for --dry-run and the cost so far",
    )
    shared.add_argument("--log-json", action="store_true", help="logs as one JSON object a line, on stderr")
    shared.add_argument("--debug", action="store_true", help="tracebacks and the logs of Ray and its workers")


def _load(name: str) -> Command | None:
    """The command of that name; None if this build does not have it."""
    module = f"ray_jobs.commands.{name.replace('-', '_')}{'_' if keyword.iskeyword(name) else ''}"
    try:
        return importlib.import_module(module).COMMAND
    except ModuleNotFoundError as error:
        if error.name == module:
            return None
        raise
