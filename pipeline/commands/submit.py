"""`movielens submit`: starts the pipeline on Kubeflow Pipelines, and follows the run to its end."""

import contextlib
import functools
import inspect
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.commands.job import SetOption
from pipeline.config import single_settings
from pipeline.local.errors import RunError
from pipeline.paths import PathError, local_path

if TYPE_CHECKING:
    from kfp import Client

_TOKEN = "MOVIELENS_KUBEFLOW_TOKEN"
_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_SECONDS = 5.0  # Between two looks at a run.
_FAILURES = 12  # Looks in a row that may fail before it is given up.
_PATIENCE = 60  # Seconds to wait for an answer.
_REFUSED = (401, 403, 404)  # What will be answered to every further look, too.


class _Refused(RunError):
    """Kubeflow Pipelines refuses to answer."""


class Runner(StrEnum):
    """Where to run."""

    KUBEFLOW = "kubeflow"
    VERTEX = "vertex"  # Refused, with the reason.


def submit(
    host: Annotated[str, typer.Option(help="Address of Kubeflow Pipelines.", metavar="URL")],
    spec: Annotated[
        Path,
        typer.Option(help="What `kubeflow/compile.py` wrote.", metavar="FILE.yaml", parser=local_path),
    ] = Path("movielens.yaml"),
    runner: Annotated[Runner, typer.Option(help="Where to run; vertex is refused, with the reason.")] = Runner.KUBEFLOW,
    experiment: Annotated[
        str, typer.Option(help="The experiment to which the run belongs.", metavar="NAME")
    ] = "movielens",
    namespace: Annotated[
        str | None, typer.Option(help="Of the user, where Kubeflow has several.", metavar="NAME", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Another folder of the raw files, as containers see it.", metavar="DIR", show_default=False),
    ] = None,
    overrides: SetOption = None,
    follow: Annotated[bool, typer.Option(help="Wait for the end of the run.")] = True,
) -> None:
    """Start the pipeline on Kubeflow Pipelines, and follow the run to its end.

    If Kubeflow asks for a token, set MOVIELENS_KUBEFLOW_TOKEN to it.

    Exits with 0 if the run has succeeded, or has begun with --no-follow; 1 if it failed or Kubeflow cannot be reached;
    and 2 if the file or an option is invalid.
    """
    if runner is Runner.VERTEX:
        raise PathError(
            "--runner: should be kubeflow; Vertex AI knows two resolvers only, of which one takes the latest blessed "
            "model of any Trainer for the champion of each."
        )
    single_settings(overrides)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    name = _name_of(spec)
    arguments = {"settings": overrides or []} | ({"data": data} if data else {})
    client = _client(host, namespace)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    run = _asked(
        host,
        lambda: client.create_run_from_pipeline_package(
            str(spec), arguments, run_name=f"{name} {now}", experiment_name=experiment, namespace=namespace
        ),
    )
    if not run.run_id:
        raise RunError(
            f"{host}: answers, but not as Kubeflow Pipelines does when it starts a run. It may be a page to log on, "
            f"for which {_TOKEN} should be set, or another address."
        )
    console.print(f"Run {run.run_id} of {name}: {host.rstrip('/')}/#/runs/details/{run.run_id}")
    if not follow:
        return
    try:
        state = _follow(client, host, run.run_id, console)
    except (KeyboardInterrupt, RunError):
        console.print("No longer followed; the run goes on.")
        raise
    if state != "SUCCEEDED":
        raise RunError(f"The run ended as {state}; its page and the logs of its containers say why.")


def _name_of(spec: Path) -> str:
    """The name of a pipeline in a file.

    Raises:
      PathError: there is none.
    """
    import yaml

    try:
        first = next(yaml.safe_load_all(spec.read_text(encoding="utf-8")))
        return str(first["pipelineInfo"]["name"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StopIteration, KeyError, TypeError) as error:
        raise PathError(f"--spec: {spec} should be a file that kubeflow/compile.py wrote; {error!r}.") from error


def _client(host: str, namespace: str | None) -> "Client":
    try:
        from kfp import Client
        from kfp_server_api.rest import RESTClientObject
    except ImportError as error:
        raise RunError("kfp is not installed; `scripts/setup.sh --all-extras` installs it.") from error

    # kfp waits for an answer without end, and has no setting for it. All that a client asks goes through this, and to
    # make one asks already; so the class is changed, of which this process has no other use.
    ask = inspect.unwrap(RESTClientObject.request)

    @functools.wraps(ask)
    def ask_with_patience(*arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
        return ask(*arguments, _request_timeout=_request_timeout or _PATIENCE, **options)

    def connect() -> "Client":
        return Client(
            host=host, existing_token=os.environ.get(_TOKEN, "").strip() or None, namespace=namespace or "kubeflow"
        )

    RESTClientObject.request = ask_with_patience
    client: Client = _asked(host, connect)
    return client


def _asked(host: str, ask: Any) -> Any:
    """The answer of Kubeflow Pipelines.

    Raises:
      RunError: there is none, or it refuses.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        with _quiet():
            return ask()
    except ApiException as error:
        # An answer that is no answer of its API has no status.
        answered = f"answers {error.status} {error.reason}" if error.status else "does not answer as it should"
        failure = RunError(f"{host}: Kubeflow Pipelines {answered}: {_reason(error)}")
        raise _Refused(str(failure)) if error.status in _REFUSED else failure from error
    except (HTTPError, OSError) as error:
        raise RunError(f"--host: {host} should be the address of Kubeflow Pipelines; {error}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{host}: does not answer as Kubeflow Pipelines does; {type(error).__name__}: {error}."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps kfp from warning of itself, and from printing errors that are told otherwise."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: Any) -> str:
    try:
        return str(json.loads(error.body)["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.body or error.reason)[:200]


def _follow(client: "Client", host: str, run_id: str, console: Console) -> str:
    """Prints what becomes of the nodes until the run has ended; returns its state."""
    told: dict[str, str] = {}
    failures = 0
    while True:
        try:
            run = _asked(host, lambda: client.get_run(run_id))
            if not run.run_id:
                raise RunError(f"{host}: answers something else than what becomes of a run.")
            failures = 0
        except _Refused:
            raise
        except RunError:
            # The run goes on, whatever the way to it is like.
            failures += 1
            if failures == _FAILURES:
                raise
            time.sleep(_SECONDS)
            continue
        for task in (run.run_details.task_details if run.run_details else None) or []:
            # Several tasks may have the same name; one that has not begun has no id.
            name, state = task.display_name or task.task_id, task.state or "PENDING"
            task_id = task.task_id or name
            if told.get(task_id) != state:
                told[task_id] = state
                console.print(f"{name}: {state.lower()}")
        if run.state in _ENDED:
            return str(run.state)
        time.sleep(_SECONDS)
