"""The report of a chaos run: one HTML file, made of a run directory, that shows what was broken and
what held.

`run` reads a run directory, `story` tells from a history who held what, `drawing` turns that into
small tables, `charts` says how they are drawn, and `page` puts it all into one file that needs no
network.
"""
