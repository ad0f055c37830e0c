"""The first byte of a coded plane, which says how it was coded; all entropy coders share these numbers.

0 stands for codes that stay packed, and numbers below `FIRST` belong to `tightwire.wire.rans`.
"""

from typing import Final

PACKED: Final = 0
FIRST: Final = 0xE0
ELIAS_GAMMA_DENSE: Final = 0xE0
ELIAS_GAMMA_SPARSE: Final = 0xE1
ELIAS_OMEGA_DENSE: Final = 0xE2
ELIAS_OMEGA_SPARSE: Final = 0xE3
GOLOMB: Final = 0xE4
RUNS: Final = 0xE5
ZSTD_PACKED: Final = 0xE6
ZSTD_PLAIN: Final = 0xE7
ZSTD_BYTES: Final = 0xE8
