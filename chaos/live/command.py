"""`python -m chaos list | run | campaign | replay`: the campaigns from the command line."""

from __future__ import annotations
