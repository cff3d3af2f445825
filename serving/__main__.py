"""`python -m serving --models DIR` runs the local model server; other programs start it as a child process this way."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from serving.local.server import DEFAULT_HOST, ModelServer, PortUnavailableError, ServerConfig
from serving.local.versions import has_models

_EXIT_SECONDS = 10.0


def main() -> int:
    """Serves until a signal arrives; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serves the SavedModels of a folder.")
    parser.add_argument("--models", type=_folder, required=True, help="folder of NAME/VERSION/saved_model.pb")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="port for gRPC (default: a free one)")
    parser.add_argument("--rest-port", type=int, default=0, help="port for REST (default: a free one)")
    parser.add_argument(
        "--ready-line",
        action="store_true",
        help="write the ports as one line of JSON to standard output when ready, and stop when standard input closes",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if arguments.ready_line:
        threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    try:
        if not has_models(arguments.models):
            parser.error(f"{arguments.models} should hold models as NAME/VERSION/saved_model.pb; received none.")
    except OSError as error:
        parser.error(f"{arguments.models} should be a readable folder; {error.strerror}.")
    server = ModelServer(ServerConfig(arguments.models, arguments.host, arguments.port, arguments.rest_port))
    try:
        server.start()
    except PortUnavailableError as error:
        parser.error(str(error))
    server.stop_on_signals()
    try:
        if not server.store.served():
            logging.error("No model could be loaded from %s.", arguments.models)
            return 1
        if arguments.ready_line:
            ready = {"port": server.port, "rest_port": server.rest_port, "models": server.store.served()}
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
        server.wait()
    finally:
        server.stop()
    return 0


def _folder(text: str) -> Path:
    """Parses a folder of models, in which TensorFlow looks for files with patterns; `Path` alone would take a URI."""
    if "://" in text or any(character in text for character in "[]*?{}\\"):
        raise argparse.ArgumentTypeError(
            f"should be a path without :// and without [ ] * ? {{ }} \\; received {text!r}"
        )
    return Path(text)


def _stop_when_stdin_closes() -> None:
    # Reads the file descriptor, not sys.stdin: while this thread waits in sys.stdin.read it holds the lock of its
    # buffer, and Python aborts when it cannot get that lock on exit.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # If the orderly shutdown hangs, the parent process may no longer be there to end this one, so it ends itself.
    threading.Event().wait(_EXIT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
