"""Errors of a run, each with one message for the user, and the search for the root cause of what a component raised."""

import errno
import re
from collections.abc import Iterator

# Names of the exceptions that components raise for bad input data. Their messages are never shortened, since those
# errors limit the length themselves.
DATA_ERRORS = ("DataError", "AnomalyError")

_TRACEBACK = "Traceback (most recent call last)"
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Failure)): (?P<text>.+)$")
_BEAM_STEP_SUFFIX = re.compile(r"\s*\[while running '.*$", re.DOTALL)
_MAX_MESSAGE_CHARACTERS = 1000
_UNINFORMATIVE_TYPES = ("Exception", "RuntimeError")
_DISK_FULL_TEXTS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


class RunError(Exception):
    """A run that failed; the message tells the user everything, so that no traceback is shown."""

    exit_code = 1


class NodeFailed(RunError):
    """A component failed.

    Attributes:
      node_id: the id of the component.
      reason: the message of the root cause, one or a few lines.
    """

    def __init__(self, node_id: str, reason: str):
        super().__init__(f"{node_id} failed: {reason}")
        self.node_id, self.reason = node_id, reason


class BadInputFound(NodeFailed):
    """A component found that the input data are invalid."""

    exit_code = 2


def disk_is_full(error: BaseException) -> bool:
    """Returns whether the error, or any error in its chain of causes, comes from a full disk."""
    return any(
        (isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(sign in str(link) for sign in _DISK_FULL_TEXTS)
        for link in _chain(error)
    )


def root_cause(error: BaseException) -> tuple[str, str]:
    """Returns the type name and the message of the error that caused the others.

    A full disk comes first, then a data error anywhere in the chain, then the end of the chain of causes. Beam
    re-raises the errors of its workers with their traceback as the message; the cause is then parsed from that text.
    """
    if disk_is_full(error):
        return "OSError", "No space left on device"
    for link in _chain(error):
        kind, text = _type_and_message(link)
        if kind in DATA_ERRORS:
            return kind, text
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return _type_and_message(cause)


def _type_and_message(error: BaseException) -> tuple[str, str]:
    """Returns the type name and message of one error, or of the cause in a traceback that its message contains."""
    text = str(error)
    if _TRACEBACK in text:
        # A traceback prints the oldest error of a chain first. Of errors raised while another one was handled, the last
        # one matters most; of errors raised `from` another one, the first, which is their cause.
        text = text.split("During handling of the above exception")[-1]
        text = text.split("The above exception was the direct cause")[0]
        matches = [match for line in text.splitlines() if (match := _EXCEPTION_LINE.match(line.strip()))]
        if matches:
            return matches[-1]["type"], _shortened(matches[-1]["text"])
    kind = type(error).__name__
    return kind, text if kind in DATA_ERRORS else _shortened(text)


def _shortened(text: str) -> str:
    text = _BEAM_STEP_SUFFIX.sub("", text).strip() or "no message"
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else f"{text[:_MAX_MESSAGE_CHARACTERS]} …"


def node_failure(node_id: str, error: BaseException) -> NodeFailed:
    """Returns the failure of a component, with the message of its root cause."""
    kind, text = root_cause(error)
    if kind in DATA_ERRORS:
        return BadInputFound(node_id, text)
    return NodeFailed(node_id, text if disk_is_full(error) or kind in _UNINFORMATIVE_TYPES else f"{kind}: {text}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and then its causes, as a traceback would show them; a cycle ends the chain."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
