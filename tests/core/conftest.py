"""Helpers of the core's tests that assert tell what they compared, as the tests themselves do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.core.transcripts.judged", "tests.core.admission.clients")
