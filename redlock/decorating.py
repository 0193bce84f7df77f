"""What decorators of both APIs have in common: the resource of a call, named by its arguments."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping
from typing import Any, Generic

from redlock.core.names import keys_of
from redlock.errors import ConfigurationError
from redlock.options import L, LockOptions

__all__ = ["Naming", "name_of", "without_first"]

_FORMATTER = string.Formatter()


class Naming(Generic[L]):
    """The lock of each call of *function*: *options*, with the arguments of the call where its
    resource has their names in braces.

    *skipped*: how many arguments, at the front, the decorator itself gives. Raises
    ConfigurationError for a name that is no parameter: all calls would share one lock.
    """

    def __init__(
        self,
        options: LockOptions[L],
        prefix: str,
        function: Callable[..., object],
        *,
        skipped: int = 0,
    ) -> None:
        self._options = options
        self._prefix = prefix
        self._skipped = (None,) * skipped
        self._template = options.resource
        self._plain: LockOptions[L] | None = None
        try:
            names = _names(self._template)
            # Of what is built in, not all has one.
            self._signature = inspect.signature(function) if names else inspect.Signature()
        except ValueError as error:
            raise self._refused(str(error)) from None
        unknown = sorted(names - set(list(self._signature.parameters)[skipped:]))
        if unknown:
            which = f"{{{unknown[0]}}} names no parameter of {name_of(function)}"
            raise self._refused(which)
        if not names:
            self._plain = self._of({})

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LockOptions[L]:
        """The lock of one call. Raises TypeError for arguments that the function does not take."""
        if self._plain is not None:
            return self._plain
        bound = self._signature.bind(*self._skipped, *args, **kwargs)
        bound.apply_defaults()
        return self._of(bound.arguments)

    def _of(self, arguments: Mapping[str, Any]) -> LockOptions[L]:
        resource = _FORMATTER.vformat(self._template, (), arguments)
        return self._options._replace(resource=resource, keys=keys_of(self._prefix, resource))

    def _refused(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"resource {self._template!r} of a decorator: {why}; write {{{{ and }}}} for braces"
        )


def without_first(function: Callable[..., object]) -> inspect.Signature:
    """The signature that callers of *function* see when its first argument is given for them."""
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _names(template: str) -> set[str]:
    """The arguments that *template* names, those within a format included."""
    found = set[str]()
    for _, field, form, conversion in _FORMATTER.parse(template):
        if field is not None:
            if conversion not in (None, "a", "r", "s"):
                raise ValueError(f"unknown conversion !{conversion}")
            found |= {_root(field), *_names(form or "")}
    return found


def _root(field: str) -> str:
    for at, char in enumerate(field):
        if char in ".[":
            return field[:at]
    return field


def name_of(function: Callable[..., object]) -> str:
    """What a message calls *function*: a partial one has no name."""
    return getattr(function, "__qualname__", repr(function))
