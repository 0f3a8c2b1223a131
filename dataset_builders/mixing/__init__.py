"""Mixing: which row comes at which position (shares, weights, order, packing)."""
