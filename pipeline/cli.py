"""The `movielens` command line."""

import importlib
import sys
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from pipeline.local.errors import RunError

FAILED, USAGE = 1, 2
INTERRUPTED = 130

# Errors of wrong user input, as {module: class name}: names, so that this module need not import pydantic or pandas.
_INPUT_ERRORS = {
    "pipeline.config": "ConfigError",
    "pipeline.metadata_server": "ServerSettingError",
    "pipeline.paths": "PathError",
    "components.data.raw_files": "DataError",
}


class Command(NamedTuple):
    """A sub-command. Its module is imported only when the sub-command is called, which keeps `movielens --help` quick.

    Attributes:
      module: the module to import.
      attribute: the function or `typer.Typer` in that module.
      summary: the description in the list of sub-commands.
    """

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "run": Command(
        "pipeline.commands.run",
        "run",
        "Train, evaluate and push the models, and ask the recommender for a first answer.",
    ),
    "plan": Command(
        "pipeline.commands.plan",
        "plan",
        "Say what a run with the same options would do: which components would run, and why.",
    ),
    "compile": Command(
        "pipeline.commands.nodes",
        "compile_",
        "Compile the pipeline, so that an orchestrator can run each node in a process of its own.",
    ),
    "run-node": Command(
        "pipeline.commands.nodes",
        "run_node",
        "Run one node of a compiled pipeline in this process.",
    ),
    "summary": Command(
        "pipeline.commands.nodes",
        "summary",
        "Show the results of a run whose nodes were run one by one, and write them to summary.json.",
    ),
    "submit": Command(
        "pipeline.commands.submit",
        "submit",
        "Start the pipeline on Kubeflow Pipelines, and follow the run to its end.",
    ),
    "tune": Command(
        "pipeline.commands.tune",
        "tune",
        "Search for better hyper-parameters of a model, measured on the eval split.",
    ),
    "withdraw": Command(
        "pipeline.commands.withdraw",
        "withdraw",
        "Take a version of a model out of serving, and have no later run push that model again.",
    ),
    "prune": Command(
        "pipeline.commands.prune",
        "prune",
        "Free the disk of what earlier runs have left, but nothing that is served, blessed or a champion.",
    ),
    "serve": Command(
        "pipeline.commands.serve",
        "serve",
        "Serve pushed models over TensorFlow Serving's gRPC and REST protocols, until interrupted.",
    ),
    "recommend": Command(
        "pipeline.commands.recommend",
        "recommend",
        "Ask a model server, such as `movielens serve`, which movies a user would like.",
    ),
    "data": Command("pipeline.commands.data", "app", "Generate, download and check the data that the pipeline reads."),
    "doctor": Command(
        "pipeline.commands.doctor",
        "doctor",
        "Check the installed packages and the machine, and say how to fix problems.",
    ),
}


def exit_code(error: BaseException) -> int | None:
    """Returns the exit code for an error whose message suffices for the user; None for one that needs a traceback."""
    if isinstance(error, RunError):
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        # A path of the user that may not be looked at, or is too long; what fails inside of a run is a RunError. A
        # store that does not answer is nobody's mistake, so that an orchestrator tries again.
        return FAILED if isinstance(error, ConnectionError) else USAGE
    for module, name in _INPUT_ERRORS.items():
        # If the module was never imported, the error cannot be of its type; so there is no need to import it here.
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return USAGE
    return None


def load(name: str) -> Any:
    """Imports a sub-command and returns it as a click command."""
    command = COMMANDS[name]
    target = getattr(importlib.import_module(command.module), command.attribute)
    if not isinstance(target, typer.Typer):
        single_command = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
        single_command.command(name)(target)
        target = single_command
    loaded = typer.main.get_command(target)
    loaded.name = name
    return loaded


class _Commands(TyperGroup):
    """Imports a sub-command when it is called, and shows the project's own errors as one message and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt
        except Exception as error:
            code = exit_code(error)
            if code is None:
                raise
            message = f"[bold red]Error:[/bold red] {escape(str(error))}"
            Console(stderr=True).print(message, soft_wrap=True, highlight=False)
            raise typer.Exit(code) from error


def _placeholder() -> None:
    """Registers a sub-command for the list of commands; `_Commands` replaces it with the real one when it is called."""


app = typer.Typer(
    name="movielens",
    cls=_Commands,
    help="A two-stage movie recommender as a TFX production pipeline on MovieLens 1M.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary)(_placeholder)


def main() -> None:
    """Entry point of the `movielens` command."""
    app()
