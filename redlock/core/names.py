"""The keys of a resource, and the names that would collide with ours."""

from __future__ import annotations

from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY, QUEUE_SUFFIX
from redlock.core.policy import check_text
from redlock.errors import ConfigurationError

__all__ = ["keys_of"]


def keys_of(prefix: str, resource: str) -> tuple[str, str]:
    """The lock key and the fence key of *resource*. Raises ConfigurationError for a name that is
    one of ours."""
    if not isinstance(resource, str) or not resource:
        raise ConfigurationError(f"resource must be a non-empty string, not {resource!r}")
    check_text("resource", resource)
    lock_key = prefix + resource
    if lock_key == MARKER_KEY or lock_key.endswith((FENCE_SUFFIX, QUEUE_SUFFIX)):
        raise ConfigurationError(
            f"resource {resource!r}: its key {lock_key!r} is one that redlock keeps for itself"
        )
    return lock_key, lock_key + FENCE_SUFFIX
