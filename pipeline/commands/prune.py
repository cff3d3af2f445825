"""`movielens prune`: frees the disk of what earlier runs have left."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.commands.job import output_of_runs
from pipeline.local.errors import RunError
from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from pipeline.paths import artifact_path

if TYPE_CHECKING:
    from pipeline.local.pruning import Pruning


class PlaceNotPrunedError(RunError):
    """What is to be pruned lies at a URI."""

    exit_code = 2


def prune(
    output: Annotated[
        Path,
        typer.Option(help="The output folder of the runs.", metavar="DIR", parser=artifact_path, show_default=False),
    ],
    keep_runs: Annotated[
        int, typer.Option(help="How many of the newest runs that came to their end keep their artifacts.", min=1)
    ] = 2,
    keep_versions: Annotated[
        int, typer.Option(help="How many of the newest versions of each model stay in serving.", min=1)
    ] = 2,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it. Without this, it is only said what would be removed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed, even with --yes; as without either.")
    ] = False,
) -> None:
    """Free the disk of what earlier runs have left, but nothing that is served, blessed or a champion.

    Only says what it would do, unless --yes is given. These are removed:

    - Artifacts of all but the newest runs. A run that failed or was interrupted is not counted, nor is a search by
      `movielens tune`, but each stays with all it has if it is newer than the oldest run that stays. What the newest
      runs took from the cache stays, too.

    - Versions in serving/ that runs have pushed, of each model all but the newest. Unlike a version that is deleted by
      hand, one that is pruned does not keep its model from being pushed again.

    - Logs, and what TFX noted down, from before the oldest run that stays.

    These stay, however old they are: blessed models that were not withdrawn, with their blessings and the Transform
    graphs that they were made with; the copies of versions that stay in serving; of the rows that a model was made of,
    the keys, by which later runs tell whether it has seen their test rows; versions that were put into serving/ by
    hand; and whatever lies outside of the folder.

    What is removed is never taken from the cache again. A prune that was cut off is finished by the next.

    Exits with 0 if all went well, 1 if something failed or a run is in progress, and 2 if no run has written to the
    folder, it is a copy of that which they have written to, or artifacts or pushed models are at a URI, where
    nothing is pruned.
    """
    folder = output_of_runs(output)
    if folder.places:
        raise PlaceNotPrunedError(
            f"--output: should be a folder that holds its artifacts and pushed models itself; those of {folder.root} "
            f"are at {' and '.join(map(str, folder.places))}. Nothing was removed. Rules of the store may remove "
            "old objects, but the metadata would not know, and later runs would miss them."
        )
    with folder.locked("wait for it to end"):
        folder.check_metadata()
        import_tensorflow_quietly()
        from pipeline.local.pruning import carry_out, find

        found = find(folder, keep_runs, keep_versions)
        does = yes and not dry_run
        if does:
            carry_out(folder, found)
    console = Console()
    for line in lines(found, does):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(pruning: "Pruning", done: bool) -> list[str]:
    """What was, or would be, removed and what stays, in sentences.

    Args:
      pruning: what was found.
      done: whether it was removed.
    """
    return [*_removed(pruning, done), *_kept(pruning)]


def _removed(pruning: "Pruning", done: bool) -> list[str]:
    from pipeline.local.pruning import by_name, kinds

    verb = "Removed" if done else "Would remove"
    said = []
    if pruning.artifacts:
        of_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds(pruning.artifacts).items())
        runs = f" of {_count(pruning.runs, 'earlier run')}" if pruning.runs else ""
        said.append(f"{verb} {_count(len(pruning.artifacts), 'artifact')}{runs}: {of_kinds}.")
    if reduced := sum(bool(artifact.but) for artifact in pruning.artifacts):
        said.append(
            f"Of {reduced} of the Examples the keys of their rows stay, since models that stay were made of them."
        )
    if pruning.versions:
        names = by_name((push.name, push.version) for push in pruning.versions)
        said.append(f"{verb} from serving {_versions(names)}; their models may be pushed again.")
    if pruning.logs or pruning.records:
        said.append(f"{verb} {_count(len(pruning.logs), 'log')} and {_count(len(pruning.records), 'record')} of TFX.")
    if not said:
        return ["There is nothing to remove."]
    megabytes = f"{pruning.size / 2**20:.1f} MB"
    return [*said, f"Freed {megabytes}." if done else f"That would free {megabytes}; --yes does it."]


def _kept(pruning: "Pruning") -> list[str]:
    if pruning.since is None:
        runs = "Kept: all runs"
        runs += f", since only {pruning.kept_runs} came to an end." if pruning.kept_runs else "; none came to its end."
    else:
        newest = "the newest run" if pruning.kept_runs == 1 else f"the newest {pruning.kept_runs} runs"
        runs = f"Kept: {newest} and all that was begun since {pruning.since:%Y-%m-%d %H:%M:%S} UTC."
    said = [runs]
    if pruning.blessed:
        what = _count(pruning.blessed, "earlier model")
        said.append(f"Kept: {what} that may be a champion, since blessed and not withdrawn.")
    if pruning.served:
        copies = f", and {_count(pruning.copies, 'earlier copy', 'earlier copies')} of these" if pruning.copies else ""
        said.append(f"Kept in serving: {_versions(pruning.served)}{copies}.")
    if pruning.by_hand:
        said.append(f"Left alone, since no run put them there: {_versions(pruning.by_hand)}.")
    if pruning.elsewhere:
        what = _count(pruning.elsewhere, "artifact")
        said.append(f"Left alone: {what} outside of the folder, which is a copy.")
    return said


def _versions(names: dict[str, list[int]]) -> str:
    return "; ".join(f"{name} {', '.join(map(str, numbers))}" for name, numbers in names.items())


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or f'{one}s'}"
