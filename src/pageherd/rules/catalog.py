"""All decision points: importing this fills `POINTS`."""

from pageherd.rules import calls, counting, fork, protection, reclaim, reuse, swapin, unshare
from pageherd.rules.base import POINTS

FILES = (reuse, unshare, swapin, fork, reclaim, protection, counting, calls)

__all__ = ["FILES", "POINTS"]
