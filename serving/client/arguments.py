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
