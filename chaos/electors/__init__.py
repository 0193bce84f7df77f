"""Other libraries' leader electors under the same faults: who worked while somebody else did, and
for how long past the end of its lease. What a candidate program must do stands in README.md here.

`candidate.py`, `signs.py` and what lies in `programs/` run in environments of the electors' own,
and import nothing but the standard library and the elector.
"""
