"""The command line, `movielens`."""

import sys
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from pipeline.commands.data import app as data
from pipeline.commands.doctor import doctor
from pipeline.commands.run import run
from pipeline.errors import RunError

USAGE = 2
INTERRUPTED = 130

_OWN_ERRORS = {
    "pipeline.config": "ConfigError",
    "components.data.raw_files": "DataError",
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


class _OneMessage(TyperGroup):
    """Turns the project's own errors into one message on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt
        except Exception as error:
            code = exit_code(error)
            if code is None:
                raise
            Console(stderr=True).print(
                f"[bold red]Error:[/bold red] {escape(str(error))}", soft_wrap=True, highlight=False
            )
            raise typer.Exit(code) from error


app = typer.Typer(
    name="movielens",
    cls=_OneMessage,
    help="A two-stage movie recommender as a TFX production pipeline on MovieLens 1M.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data")
app.command()(run)
app.command()(doctor)


def main() -> None:
    """Entry point of the `movielens` command."""
    app()
