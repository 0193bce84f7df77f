"""A deterministic world in virtual time that drives the shipped flows, links and parser."""
