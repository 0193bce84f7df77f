"""The keys of a resource, and the names that would collide with ours."""

from __future__ import annotations

from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY, QUEUE_SUFFIX
from redlock.core.policy import check_text
from redlock.errors import ConfigurationError, shown

__all__ = ["keys_of"]


def keys_of(prefix: str, resource: str) -> tuple[str, str]:
    """The lock key and the fence key of *resource*. Raises ConfigurationError for a name that is
    one of ours."""
    if not isinstance(resource, str) or not resource:
        raise ConfigurationError(
            f"resource must be a non-empty string, not {shown(resource)}: give the lock a name"
        )
    check_text("resource", resource)
    lock_key = prefix + resource
    if lock_key == MARKER_KEY or lock_key.endswith((FENCE_SUFFIX, QUEUE_SUFFIX)):
        raise ConfigurationError(
            f"resource {shown(resource)}: its key {shown(lock_key)} is one that redlock keeps for"
            f" itself: give another name, or a key_prefix, and end it neither with"
            f" {FENCE_SUFFIX!r} nor {QUEUE_SUFFIX!r}"
        )
    return lock_key, lock_key + FENCE_SUFFIX
