"""A rule whose answer means nothing."""

from pageherd import alternative, proposal


@alternative("reuse")
def nonsense(s, t, k, frame):
    return 7


KERNEL = proposal("nonsense", extends="linux-6.1", reuse=nonsense)
