"""`movielens serve`: the local model server."""

import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from pipeline.paths import artifact_path
from serving.local.limits import Limits
from serving.local.versions import has_models

FAILED, BAD_INPUT = 1, 2  # Exit codes.


def serve(
    models: Annotated[
        Path,
        typer.Option(
            help="Folder with models as NAME/VERSION/saved_model.pb, for example output/sample/serving.",
            metavar="DIR",
            parser=artifact_path,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine can reach 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0 for a free one.")] = 8500,
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for REST; 0 for a free one.")] = 8501,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest number of rows in a request.")] = Limits.batch,
    max_megabytes: Annotated[
        int, typer.Option(min=1, max=1024, help="Largest size of a request, in MiB.")
    ] = Limits.message_bytes >> 20,
) -> None:
    """Serve pushed models over TensorFlow Serving's gRPC and REST protocols, until interrupted.

    The server offers the newest complete version of every model, and picks up new versions while it runs. It never
    serves a version that is still being copied or that cannot be loaded.

    So that no client can take the machine from the others, it refuses requests larger than the options allow, lets at
    most 256 gRPC calls and 512 REST connections wait, and closes connections that are idle for a minute.

    Exits with 0 when stopped by Ctrl-C or SIGTERM, 1 if no model could be loaded, and 2 if the folder holds no models
    or a port cannot be used.
    """
    _check_models(models)
    from serving.local.server import ModelServer, PortUnavailableError, ServerConfig

    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)], force=True
    )
    limits = Limits(message_bytes=max_megabytes << 20, batch=max_batch)
    server = ModelServer(ServerConfig(models, host, port, rest_port, limits=limits))
    try:
        server.claim_ports()
        import_tensorflow_quietly()
        server.start()
        served = server.store.served()
        if not served:
            _fail(f"{models}: no model could be loaded.", FAILED)
        server.stop_on_signals()
        _print_ready(server.config.models, served, host, server.port, server.rest_port)
        server.wait()
    except PortUnavailableError as error:
        _fail(str(error), BAD_INPUT)
    finally:
        server.stop()


def _check_models(models: Path) -> None:
    if not models.is_dir():
        _fail(f"{models}: should be a folder of models; there is no such folder.", BAD_INPUT)
    try:
        found = has_models(models)
    except OSError as error:
        _fail(f"{error.filename}: should be readable; {error.strerror}.", BAD_INPUT)
    if not found:
        _fail(f"{models}: should hold models as NAME/VERSION/saved_model.pb; received none.", BAD_INPUT)


def _print_ready(models: Path, served: dict[str, int], host: str, port: int, rest_port: int) -> None:
    table = Table("Model", "Version", title=escape(str(models)), title_justify="left")
    for name, version in served.items():
        table.add_row(escape(name), str(version))
    console = Console()
    console.print(table)
    console.print(
        f"gRPC on {host}:{port}, REST on http://{host}:{rest_port}/v1/models/NAME; Ctrl-C ends.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)
