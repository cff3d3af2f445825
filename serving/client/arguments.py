"""Checks of what applications pass to the client, so that nothing is rounded, cut or misread without a word.

Every error is a ValueError that names the argument, what was expected, and what was received.
"""

import operator
import re
from collections.abc import Iterable, Mapping, Set
from ipaddress import IPv6Address
from numbers import Real
from typing import Any

import numpy as np

# Python's sockets measure time-outs in 32-bit milliseconds, which are 24 days; nobody waits longer than one.
_LONGEST_SECONDS = 24 * 3600

# Longer numbers are not only wrong: with thousands of digits, Python refuses to show them.
_MOST_BITS = 1000

LARGEST_INT64 = 2**63 - 1

# The end of the year 9999, after which Python has no dates.
_LAST_SECOND = 253_402_300_799

_HOST_NAME = re.compile(r"(?=.*\w)[\w.-]+")


def whole_number(name: str, value: Any) -> int:
    """Returns an integer of Python or NumPy as Python's; refuses floats, even 7.0, and booleans."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            number = operator.index(value)
            if number.bit_length() > _MOST_BITS:
                raise ValueError(f"{name} should be a whole number of at most 64 bits; received a longer one.")
            return number
    except TypeError:
        pass
    raise ValueError(f"{name} should be a whole number; received {value!r}.")


def whole_number_in(name: str, value: Any, least: int, most: int, expected: str) -> int:
    """Returns a whole number from `least` to `most`; `expected` says in words which these are."""
    number = whole_number(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} should be {expected}; received {number}.")
    return number


def real_number(name: str, value: Any) -> float:
    """Returns a number of Python or NumPy as a float; refuses booleans and text."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} should be a number; received {value!r}.")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} should be a number that a float can hold; received a longer one.") from error


def items(name: str, values: Any) -> list[Any]:
    """Returns the items of a list, tuple, range or one-dimensional array.

    Text, dictionaries and sets can be iterated too, but not as what a caller means: characters, keys, no order.
    """
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"{name} should be an array of one dimension; received one of shape {values.shape}.")
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, bytearray, Mapping, Set)):
        raise ValueError(f"{name} should be a list, tuple or array; received {values!r}.")
    return list(values)


def text(name: str, value: Any) -> str:
    """Returns a text; refuses bytes objects, numbers, and half characters, which UTF-8 cannot encode."""
    if not isinstance(value, str) or not _is_utf8(value):
        raise ValueError(f"{name} should be text that UTF-8 can encode; received {value!r}.")
    return value


def movie_ids(name: str, values: Any) -> list[int]:
    """Returns ids of movies; 0 is refused, which the recommender takes for no movie."""
    return [
        whole_number_in(f"Each movie id in {name}", movie, 1, LARGEST_INT64, "below 2**63 and positive")
        for movie in items(name, values)
    ]


def moment(name: str, value: Any, meaning_of_zero: str) -> int:
    """Returns a moment in seconds since 1970; refuses milliseconds, which would be after the year 9999."""
    expected = f"seconds since 1970, before the year 10000, or 0 {meaning_of_zero}"
    return whole_number_in(name, value, 0, _LAST_SECOND, expected)


def seconds(name: str, value: Any, *, or_zero: bool = False) -> float:
    """Returns a time in seconds that can be waited for."""
    number = real_number(name, value)
    if not (0 < number <= _LONGEST_SECONDS or (or_zero and number == 0)):
        least = "at least 0" if or_zero else "more than 0"
        raise ValueError(f"{name} should be {least} and at most {_LONGEST_SECONDS}; received {value}.")
    return number


def attempts(value: Any) -> int:
    """Returns a number of attempts."""
    number = whole_number("attempts", value)
    if number < 1:
        raise ValueError(f"attempts should be at least 1; received {number}.")
    return number


def address(host: Any, port: Any) -> str:
    """Returns "host:port", with brackets around an IPv6 address as in URLs."""
    number = whole_number("port", port)
    if not 1 <= number <= 65535:
        raise ValueError(f"port should be 1 to 65535; received {number}.")
    if isinstance(host, str):
        if _HOST_NAME.fullmatch(host):
            return f"{host}:{number}"
        if _is_ipv6(host):
            return f"[{host}]:{number}"
    raise ValueError(f"host should be a host name or an IP address, without scheme or port; received {host!r}.")


def model_name(value: Any) -> str:
    """Returns the name of a model; refuses what a REST path would read as something else."""
    if not isinstance(value, str) or not value or set(value) & set("/:") or value in (".", "..") or not _is_utf8(value):
        raise ValueError(f"model should be the name of a model, without / and :; received {value!r}.")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
