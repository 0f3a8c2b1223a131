"""Which row stands where: shares, weights, order, packing."""
