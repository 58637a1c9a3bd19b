"""linear, the twin of minigpt2.ops.linear, and the layers fused with it.

Packed weights are rows [out, in]: an output is then the dot product of two contiguous
rows, which a decode step reads as one stream at the memory's full speed ([in, out]
columns ran ten times slower).

What makes it fast: a tile of 6 rows of x by 4 rows of weights is summed up in
registers, so that every number loaded from the cache is used 4 or 6 times. Nothing is
copied or packed anew. The parts of `out` that threads compute are ranges of columns, so
each thread streams its own weights.

What makes it reproducible: every output is the same sum in the same order, whatever
stands beside it. Lane l of 16 adds x[k] * w[k] for k = l, l + 16, l + 32, ... with fused
multiply-adds; the lanes are added in halves (simd.total); the last in % 16 products
follow one by one. So a row has the same bits alone or in any batch, decoded or
prefilled, on one thread or many. BLAS, whose order depends on the shape, is not used.
"""

COLUMNS = 4  # rows of weights in a tile
CHUNK = 1024  # at most so many products before the next tile: 10 rows fit in L1
ROW_BLOCK, COLUMN_BLOCK = 24, 48  # outputs worked on at a time: their inputs fit in L2
