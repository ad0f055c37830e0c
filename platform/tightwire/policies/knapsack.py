"""One option for each item, such that the sum of errors is least and the sum of costs keeps within a limit.

This is the multiple-choice knapsack of L-GreCo (Alimohammadi et al. 2023, arXiv 2210.17357) and Kimad+ (Xin et al.
2023, arXiv 2312.08053), which both solve by dynamic programming over discretised budgets. Here it is the greedy walk
over the items' convex hulls (Sinha and Zoltners 1979), which is exact wherever the walk ends just at the limit, and
then a fill: from each stop of the walk, the one exchange of a single item's option that gains most within what is
left. The result is worse than the optimum by less than the step of the walk that no longer fits, and does not get
worse as the limit rises.
"""

import numba
import numpy as np

from tightwire.arrays import Floats, Ints

_STOPS = 256
"""The fill starts from so many of the walk's last stops."""


def knapsack(costs: Floats, errors: Floats, limit: float) -> Ints | None:
    """Choose.

    Args:
        costs: Of each item's options, shape (items, options); infinity for what cannot be had.
        errors: Likewise; finite.
        limit: Largest sum of costs.

    Returns:
        The option of each item, shape (items,); None where even the cheapest ones cost more than the limit.
    """
    choice: Ints = cheapest(costs, errors, limit)
    return None if len(costs) and choice[0] < 0 else choice


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _frontier(costs, errors, out):  # type: ignore[no-untyped-def]  # numba infers them
    """Options that none beats in both, by rising cost; how many there are."""
    had = np.flatnonzero(costs < np.inf)  # often few of them
    count = 0
    for option in had[np.argsort(costs[had], kind="mergesort")]:
        if count and errors[option] >= errors[out[count - 1]]:
            continue
        if count and costs[option] == costs[out[count - 1]]:
            count -= 1
        out[count] = option
        count += 1
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hull(costs, errors, frontier, count, out):  # type: ignore[no-untyped-def]  # numba infers them
    """Places on the frontier that lie on its lower convex hull; how many there are."""
    size = 0
    for place in range(count):
        option = frontier[place]
        while size > 1:
            one, two = frontier[out[size - 2]], frontier[out[size - 1]]
            gain = (errors[one] - errors[two]) * (costs[option] - costs[two])
            if gain > (errors[two] - errors[option]) * (costs[two] - costs[one]):
                break
            size -= 1
        out[size] = place
        size += 1
    return size


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _exchange(costs, errors, frontier, counts, at, left):  # type: ignore[no-untyped-def]  # numba infers them
    """The item and place on its frontier whose exchange gains most for at most `left` more, and the gain."""
    item, place, most = -1, -1, 0.0
    for i in range(len(costs)):
        now = frontier[i, at[i]]
        low, high = at[i], counts[i] - 1
        while low < high:
            middle = (low + high + 1) // 2
            if costs[i, frontier[i, middle]] - costs[i, now] <= left:
                low = middle
            else:
                high = middle - 1
        gain = errors[i, now] - errors[i, frontier[i, low]]
        if gain > most:
            item, place, most = i, low, gain
    return item, place, most


@numba.njit(cache=True, nogil=True, error_model="numpy")
def cheapest(costs, errors, limit):  # type: ignore[no-untyped-def]  # numba infers them
    """`knapsack` for compiled code; -1 for all items where there is none."""
    items, options = costs.shape
    frontier = np.empty((items, options), np.int64)
    hull = np.empty((items, options), np.int64)
    counts, sizes = np.empty(items, np.int64), np.empty(items, np.int64)
    corner, at = np.zeros(items, np.int64), np.zeros(items, np.int64)
    left = limit
    for i in range(items):
        counts[i] = _frontier(costs[i], errors[i], frontier[i])
        if counts[i] == 0:
            return np.full(items, -1)
        sizes[i] = _hull(costs[i], errors[i], frontier[i], counts[i], hull[i])
        left -= costs[i, frontier[i, 0]]
    if left < 0:
        return np.full(items, -1)
    steps = np.empty(sizes.sum(), np.int64)
    walked = 0
    while True:  # one step more, of the steepest of the items' next ones, until that does not fit
        item, slope, price = -1, 0.0, 0.0
        for i in range(items):
            if corner[i] + 1 < sizes[i]:
                now, then = frontier[i, hull[i, corner[i]]], frontier[i, hull[i, corner[i] + 1]]
                rise = costs[i, then] - costs[i, now]
                if (errors[i, now] - errors[i, then]) / rise > slope:
                    item, slope, price = i, (errors[i, now] - errors[i, then]) / rise, rise
        if item < 0 or price > left:
            break
        left -= price
        corner[item] += 1
        steps[walked] = item
        walked += 1
    for i in range(items):
        at[i] = hull[i, corner[i]]
    best = at.copy()
    lost, least = 0.0, np.inf
    for back in range(min(walked + 1, _STOPS)):  # `lost`: error that walking back has cost
        item, place, gain = _exchange(costs, errors, frontier, counts, at, left)
        if lost - gain < least:
            least = lost - gain
            best[:] = at
            if item >= 0:
                best[item] = place
        if back < walked:
            i = steps[walked - 1 - back]
            now = frontier[i, at[i]]
            corner[i] -= 1
            at[i] = hull[i, corner[i]]
            left += costs[i, now] - costs[i, frontier[i, at[i]]]
            lost += errors[i, frontier[i, at[i]]] - errors[i, now]
    for i in range(items):
        best[i] = frontier[i, best[i]]
    return best
