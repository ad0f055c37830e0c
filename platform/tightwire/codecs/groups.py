"""How finely a quantiser follows its values: one scale for a tensor, for each of its rows, or for each bucket.

All tensors together are one vector behind `flatten`.
"""

from typing import Literal

from tightwire.codecs.stage import Layout
from tightwire.errors import CodecError

Per = Literal["tensor", "channel"]
"""What has a scale of its own. A channel is a row, axis 0 of a tensor with two axes or more; all else is one row."""


def check_groups(name: str, per: Per, bucket: int) -> None:
    """Refuse a granularity that makes no sense.

    Raises:
        CodecError: When the bucket is negative, or given together with channels.
    """
    if bucket < 0:
        raise CodecError(f"{name} takes a bucket of 1 value or more, or 0 for none, got {bucket}")
    if bucket and per == "channel":
        raise CodecError(f"{name} has scales per=channel or for each bucket={bucket}, not both; leave one out")


def group_length(layout: Layout, per: Per, bucket: int) -> int:
    """Values that share a scale: groups are runs of this length, the last may be shorter.

    Where values no longer lie as in their tensor, as behind a sparsifier, a channel is all of them.
    """
    if bucket:
        return min(bucket, layout.count)
    return layout.count // layout.rows if per == "channel" else layout.count


def group_count(n: int, length: int) -> int:
    """Groups of `n` values in runs of `length`."""
    return -(-n // length)
