"""The evidence: what searches for violations in the code that ships, and judges what it finds."""
