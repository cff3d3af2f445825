"""What goes wrong in a run, as one clear message; and how to find that message in what a component raised."""

import errno
import re
from collections.abc import Iterator

# What components raise, by name, where the data are at fault; these errors keep their messages to a fit length.
DATA_ERRORS = ("DataError", "AnomalyError")

_TRACEBACK = "Traceback (most recent call last)"
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Failure)): (?P<text>.+)$")
_BEAM_STEP = re.compile(r"\s*\[while running '.*$", re.DOTALL)
_LONGEST = 1000
_UNINFORMATIVE_TYPES = ("Exception", "RuntimeError")
_DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")


class RunError(Exception):
    """A run that failed; the message is for the user, whole and without a traceback."""

    exit_code = 1


class NodeFailed(RunError):
    """A component failed.

    Attributes:
      node_id: the component.
      reason: the root error, in a line or a few.
    """

    def __init__(self, node_id: str, reason: str):
        super().__init__(f"{node_id} failed: {reason}")
        self.node_id, self.reason = node_id, reason


class BadInputFound(NodeFailed):
    """A component found that the input data are not as they should be."""

    exit_code = 2


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error, anywhere in its chain."""
    return any(
        (isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(sign in str(link) for sign in _DISK_FULL)
        for link in _chain(error)
    )


def root_cause(error: BaseException) -> tuple[str, str]:
    """The type's name and the text of the error that started it all.

    Beam hands on what its workers raise as the text of a traceback; the error is then read from that text.
    """
    if disk_is_full(error):
        return "OSError", "No space left on device"
    for link in _chain(error):
        kind, text = _read(link)
        if kind in DATA_ERRORS:
            return kind, text
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return _read(first)


def _read(error: BaseException) -> tuple[str, str]:
    text = str(error)
    if _TRACEBACK in text:
        # What was raised while another error was handled matters more; what was raised from another, less.
        text = text.split("During handling of the above exception")[-1]
        text = text.split("The above exception was the direct cause")[0]
        matches = [match for line in text.splitlines() if (match := _EXCEPTION_LINE.match(line.strip()))]
        if matches:
            return matches[-1]["type"], _shortened(matches[-1]["text"])
    kind = type(error).__name__
    return kind, text if kind in DATA_ERRORS else _shortened(text)


def _shortened(text: str) -> str:
    text = _BEAM_STEP.sub("", text).strip() or "no message"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def node_failure(node_id: str, error: BaseException) -> NodeFailed:
    """The failure of a component, told by its root cause."""
    kind, text = root_cause(error)
    if kind in DATA_ERRORS:
        return BadInputFound(node_id, text)
    return NodeFailed(node_id, text if disk_is_full(error) or kind in _UNINFORMATIVE_TYPES else f"{kind}: {text}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
