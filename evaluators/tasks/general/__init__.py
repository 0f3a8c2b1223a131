"""General benchmarks: what a model knew before, and should know after."""
