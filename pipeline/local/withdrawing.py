"""Takes a pushed model back: out of the serving folder, and so that no later run pushes it again."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.pushing.pushed_models import Push, Withdrawal, mark_withdrawn, parts, pushes
from components.pushing.versions import SAVED_MODEL, take_out
from components.storage.paths import UriPath
from pipeline.local.errors import RunError
from pipeline.local.output import OutputFolder
from pipeline.local.relocation import follow_move
from serving.local.versions import is_version, list_versions


class UnknownVersionError(RunError):
    """The model or the version to withdraw is not one that was pushed; the message says which there are."""

    exit_code = 2


@dataclass(frozen=True)
class TakenBack:
    """What came of a withdrawal.

    Attributes:
      withdrawal: what is written down; that of an earlier withdrawal if there was one.
      again: whether the model had been withdrawn before.
      removed: the versions that were taken out, as NAME and VERSION.
      served: for each name whose versions are concerned, the newest version that is left; None if there is none.
      by_hand: those of `served` that no run has pushed, as NAME and VERSION.
    """

    withdrawal: Withdrawal
    again: bool
    removed: list[tuple[str, int]]
    served: dict[str, int | None]
    by_hand: set[tuple[str, int]]


def withdraw(output: OutputFolder, name: str, version: int, why: str) -> TakenBack:
    """Withdraws the model that a version was made of.

    All versions of that model are taken out, since it may have been pushed more than once, and all versions of the
    recommender that are made of it. First it is written down, so that a withdrawal that was cut off can be done again.

    Only the command that has locked the folder may call this.

    Args:
      output: the folder of the run.
      name: under which the model is served.
      version: its number.
      why: the reason, for those who wonder later.

    Raises:
      UnknownVersionError: no run with this folder has pushed such a version.
    """
    store = output.store.open()
    follow_move(store, output)
    every = pushes(store)
    chosen = _find(output, every, name, version)
    of_model = [push for push in every if push.model == chosen.model]
    earlier = next((push.withdrawal for push in of_model if push.withdrawal), None)
    withdrawal = earlier or Withdrawal(datetime.now(UTC), why)
    if not earlier:
        mark_withdrawn(store, chosen, withdrawal)
    parts_of = parts(store, {push.model for push in every})
    concerned = [push for push in every if push.model == chosen.model or chosen.model in parts_of[push.model]]
    removed = [
        (push.name, push.version) for push in concerned if push.is_in(output.serving) and take_out(push.destination)
    ]
    served = {each: _newest(output.serving / each) for each in dict.fromkeys(push.name for push in concerned)}
    known = {(push.name, push.version) for push in every}
    by_hand = {(each, number) for each, number in served.items() if number is not None} - known
    return TakenBack(withdrawal, earlier is not None, removed, served, by_hand)


def _find(output: OutputFolder, every: list[Push], name: str, version: int) -> Push:
    here = [push for push in every if push.is_in(output.serving)]
    names = sorted({push.name for push in here})
    if not names:
        moved = sorted({str(push.destination.parent.parent) for push in every})
        raise UnknownVersionError(
            f"{output.root}: should be the output folder of a run that pushed models; "
            + (f"it is a copy, since its models were pushed to {', '.join(moved)}." if moved else "none were pushed.")
        )
    if name not in names:
        raise UnknownVersionError(f"MODEL should be one that was pushed: {', '.join(names)}; received {name!r}.")
    versions = {push.version: push for push in here if push.name == name}
    if version not in versions:
        by_hand = (output.serving / name / str(version)).exists()
        raise UnknownVersionError(
            f"VERSION should be one of {name} that a run pushed: {', '.join(map(str, versions))}; received {version}"
            + (", which was put there by hand, and is to be deleted by hand." if by_hand else ".")
        )
    return versions[version]


def _newest(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    if isinstance(folder, UriPath):
        found = [child for child in folder.iterdir() if is_version(child.name) and (child / SAVED_MODEL).is_file()]
        return max((int(child.name) for child in found), default=None)
    return next((version.version for version in list_versions(folder, settle_seconds=0)), None)
