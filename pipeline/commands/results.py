"""Shows the results of a run, and tells by an exit code how it ended: for commands that come to the end of one."""

from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

FAILED, NOT_BLESSED = 1, 3  # Exit codes.


def show_results(summary: dict[str, Any], console: Console) -> None:
    """Prints the tables of a summary, the champions that were met, and how long the run took."""
    from pipeline.local.progress import duration
    from pipeline.local.tables import (
        champions_lines,
        champions_of,
        champions_table,
        kept_table,
        made_of_lines,
        models_table,
        recommender_table,
    )

    for table in (models_table(summary), recommender_table(summary), kept_table(summary), champions_table(summary)):
        if table.rows:
            console.print(table)
    for line in [*champions_lines(champions_of(summary)), *made_of_lines(summary)]:
        console.print(line, soft_wrap=True, highlight=False)
    memory = summary["peak_rss_mb"]
    console.print(duration(summary["seconds"]) + (f", at most {memory} MB of memory" if memory else ""))


def end_by(summary: dict[str, Any], refused_ok: bool = False) -> None:
    """Says on standard error what was not pushed and what failed, and why.

    Args:
      summary: the results.
      refused_ok: whether a model that was not pushed is no reason to end otherwise than usual.

    Raises:
      Exit: something failed, or a model was not pushed.
    """
    some_not_pushed = _print_reasons_not_pushed(summary)
    if _print_failed_reports(summary):
        raise typer.Exit(FAILED)
    if some_not_pushed and not refused_ok:
        raise typer.Exit(NOT_BLESSED)


def _print_reasons_not_pushed(summary: dict[str, Any]) -> bool:
    """Prints to standard error which models were not pushed and why; returns whether there are any."""
    from pipeline.local.report import reasons_not_pushed

    console = Console(stderr=True)
    reasons = reasons_not_pushed(summary)
    for name, reason in reasons.items():
        message = f"[red]{name}[/red] {escape(reason)}."
        console.print(message, soft_wrap=True, highlight=False)
    return bool(reasons)


def _print_failed_reports(summary: dict[str, Any]) -> bool:
    """Prints to standard error which nodes failed that only report, and why; returns whether there are any."""
    from pipeline.local.report import failed_reports

    console = Console(stderr=True)
    failed = failed_reports(summary)
    for name, problem in failed.items():
        message = f"[bold red]Error:[/bold red] {name} failed: {escape(problem)}\nIt only reports; all else was done."
        console.print(message, soft_wrap=True, highlight=False)
    if failed:
        console.print(f"Log: {summary['log']}", soft_wrap=True, highlight=False, markup=False)
    return bool(failed)
