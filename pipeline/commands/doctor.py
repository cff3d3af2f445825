"""`movielens doctor`: checks what a run needs, and says how to fix what is missing or wrong."""

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.local.doctor import examine, platform_name


def doctor() -> None:
    """Check the installed packages and the machine, and say how to fix problems.

    Exits with 0 if a run has everything that it needs, and with 1 if something has to be fixed first.
    """
    console = Console()
    checks = examine(Path.cwd())
    table = Table(title=platform_name(), title_justify="left")
    for column in ("", "What", "Found"):
        table.add_column(column)
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]wrong[/]", escape(check.name), escape(check.value))
    console.print(table)
    problems = [check for check in checks if not check.ok]
    for problem in problems:
        console.print(
            f"[red]{escape(problem.name)}[/] ({escape(problem.value)}): {escape(problem.fix)}", soft_wrap=True
        )
    if problems:
        raise typer.Exit(1)
    console.print("All is well.")
