"""The command line, `movielens`."""

import importlib
import sys
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from pipeline.local.errors import RunError

USAGE = 2
INTERRUPTED = 130

_OWN_ERRORS = {
    "pipeline.config": "ConfigError",
    "components.data.raw_files": "DataError",
}


class Command(NamedTuple):
    """A sub-command: its module is imported only when it is called, so that `movielens --help` stays quick."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "run": Command(
        "pipeline.commands.run",
        "run",
        "Train, measure and push the models, and ask the recommender for a first answer.",
    ),
    "tune": Command(
        "pipeline.commands.tune",
        "tune",
        "Look for better hyper-parameters of a model, by its measure on the eval split.",
    ),
    "serve": Command("pipeline.commands.serve", "serve", "Serve pushed models on this machine, over gRPC and REST."),
    "recommend": Command(
        "pipeline.commands.recommend", "recommend", "Ask the server which titles a person would like."
    ),
    "data": Command("pipeline.commands.data", "app", "Make, fetch and check the data that the pipeline reads."),
    "doctor": Command(
        "pipeline.commands.doctor", "doctor", "Show the stack and the machine, and what is wrong with them."
    ),
}


def exit_code(error: BaseException) -> int | None:
    """The exit code for an error that its message explains in full; None for any other."""
    if isinstance(error, RunError):
        return error.exit_code
    for module, name in _OWN_ERRORS.items():
        # An error cannot be of a type whose module was never imported; importing it here would only cost time.
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return USAGE
    return None


def load(name: str) -> Any:
    """Imports a sub-command, as a command of click's."""
    command = COMMANDS[name]
    target = getattr(importlib.import_module(command.module), command.attribute)
    if not isinstance(target, typer.Typer):
        wrapped = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
        wrapped.command(name)(target)
        target = wrapped
    loaded = typer.main.get_command(target)
    loaded.name = name
    return loaded


class _Commands(TyperGroup):
    """Loads sub-commands when they are called; turns the project's errors into one message and an exit code."""

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
    """Stands for a sub-command in the list of commands."""


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
