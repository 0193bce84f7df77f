"""Chaos campaigns on real servers, through the real Toxiproxy, with client processes that use
the public API."""
