"""`movielens withdraw`: takes a model back that turned out to be bad after it was pushed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.commands.job import output_of_runs
from pipeline.paths import artifact_path

if TYPE_CHECKING:
    from pipeline.local.withdrawing import TakenBack


def withdraw(
    model: Annotated[
        str, typer.Argument(help="The name under which the model is served, such as ranking.", show_default=False)
    ],
    version: Annotated[
        int, typer.Argument(help="The number of its folder, serving/MODEL/VERSION.", min=0, show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(help="The output folder of the runs.", metavar="DIR", parser=artifact_path, show_default=False),
    ],
    why: Annotated[
        str,
        typer.Option(help="The reason, which later runs repeat.", metavar="TEXT", show_default=False),
    ],
) -> None:
    """Take a version of a model out of serving, and have no later run push that model again.

    The model that the version was made of is marked as withdrawn in the metadata of the output folder. From then on it
    is not pushed, no new model is compared with it, and no training starts from it. All its versions are taken out of
    serving, each in one step, so that the version before is served, or nothing. A recommender is withdrawn with a model
    that it is made of.

    A second withdrawal of the same model changes nothing, but removes what the first one, if it was cut off, has left.

    Exits with 0 if the model is withdrawn, 1 if something failed or a run is in progress, and 2 if the folder, the
    model, the version or the reason is not as it should be.
    """
    if not why.strip():
        raise typer.BadParameter("should be the reason for the withdrawal; received an empty text.", param_hint="--why")

    folder = output_of_runs(output)
    with folder.locked("wait for it to end"):
        folder.check_places()
        folder.check_metadata()
        from pipeline.local.withdrawing import withdraw as take_back

        done = take_back(folder, model, version, " ".join(why.split()))
    _print(done, model, version)


def _print(done: "TakenBack", model: str, version: int) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if done.again:
        say(f"{model} {version} was already {done.withdrawal.reason}.")
    else:
        say(f"{model} {version} is withdrawn; no later run pushes it again.")
    for name, number in done.removed:
        made_of_it = "" if name == model else f", made of {model} {version}"
        say(f"Taken out of serving: {name} {number}{made_of_it}.")
    if (model, version) not in done.removed:
        say(f"{model} {version} was no longer in serving.")
    for name, newest in done.served.items():
        by_hand = ", which was put there by hand" if (name, newest) in done.by_hand else ""
        say(f"Served as {name} from now on: {'nothing' if newest is None else newest}{by_hand}.")
