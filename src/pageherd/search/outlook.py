"""How much of a search may be left: a guess, from how its levels have grown so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_LOOK_BACK: Final = 4  # ratios that say how fast growth slows
_FEWEST: Final = 8  # levels before anything is said
_LEAST_RATIO: Final = 0.05
_MOST_LEVELS: Final = 200


def states_left(levels: Sequence[int]) -> int | None:
    """How many states are still to be found if growth goes on slowing down as it did.

    `levels`: how many states there are at each depth, the last not complete.  None while nothing
    can be said: too few levels, or no slowing down.  Levels grow by a factor that falls about
    evenly; early in a search a guess may be wrong by an order of magnitude.

    >>> states_left([1, 4, 16, 60, 200, 600, 1500, 3000, 4500, 5000, 100])
    3655
    >>> states_left([1, 4, 16, 64]) is None
    True
    """
    whole = levels[:-1]
    if len(whole) < _FEWEST:
        return None
    ratios = [b / a for a, b in pairwise(whole[-_LOOK_BACK - 2 :])]
    slope = (ratios[-1] - ratios[0]) / (len(ratios) - 1)
    ratio, size, left = ratios[-1], float(whole[-1]), 0.0
    if slope >= 0 and ratio >= 1:
        return None
    for _ in range(_MOST_LEVELS):
        ratio = max(_LEAST_RATIO, ratio + min(slope, 0.0))
        size *= ratio
        left += size
        if size < 1:
            break
    return max(0, round(left - levels[-1]))
