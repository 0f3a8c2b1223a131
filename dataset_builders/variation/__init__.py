"""Format variation: the same episodes with other tool names, wordings and orders of tools."""
