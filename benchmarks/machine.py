"""What the figures were taken with and beside: the interpreter, versions, and how busy others
kept the machine."""

from __future__ import annotations

import os
import platform
import resource
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "interpreter", "is_optimised", "machine", "snapshot"]

_TICK = os.sysconf("SC_CLK_TCK")


def is_optimised() -> bool:
    """Whether this interpreter was built with profile-guided optimisation; without it Python's
    share is half as much again.

    The flag tells it for one built by hand. Distributions' own packages, which live in /usr, are
    built so without it.
    """
    flags = (
        f"{sysconfig.get_config_var('CONFIG_ARGS')} {sysconfig.get_config_var('DEF_MAKE_ALL_RULE')}"
    )
    return "--enable-optimizations" in flags or "profile-opt" in flags or sys.base_prefix == "/usr"


def interpreter() -> str:
    """For the report: which Python, and whether it is an optimised build."""
    kind = (
        "optimised build" if is_optimised() else "NOT an optimised build: ratios to C are too high"
    )
    return f"{platform.python_implementation()} {platform.python_version()} ({kind})"


def machine() -> str:
    """For the report: the kind of machine, and nothing that names this one."""
    return (
        f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release().split('-')[0]}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@dataclass(frozen=True, slots=True)
class Load:
    """CPU seconds since boot: of everybody (*busy*), of this process and its descendants
    (*own*), taken by the hypervisor (*stolen*); and the *uptime*."""

    uptime: float
    busy: float
    own: float
    stolen: float

    def foreign_since(self, before: Load) -> float:
        """Cores that others kept busy since *before*, on average; never negative."""
        took = self.uptime - before.uptime
        return (
            max(0.0, (self.busy - before.busy) - (self.own - before.own)) / took
            if took > 0
            else 0.0
        )

    def stolen_since(self, before: Load) -> float:
        """Cores that the hypervisor gave to others since *before*, on average."""
        took = self.uptime - before.uptime
        return (self.stolen - before.stolen) / took if took > 0 else 0.0


def snapshot() -> Load:
    """The load up to now."""
    fields = [
        int(word) for word in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    ]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    uptime = float(Path("/proc/uptime").read_text("ascii").split()[0])
    return Load(uptime, (user + nice + system + irq + softirq) / _TICK, _own(), steal / _TICK)


def _own() -> float:
    """CPU seconds of this process, of its living descendants, and of those that were waited for."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = mine.ru_utime + mine.ru_stime + ended.ru_utime + ended.ru_stime
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:  # It ended while we looked.
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / _TICK
    us = os.getpid()
    for pid in used:
        ancestor = pid
        while (ancestor := parents.get(ancestor, 0)) > 1:
            if ancestor == us:
                total += used[pid]
                break
    return total
