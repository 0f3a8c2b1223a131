"""Statistics of figures: confidence intervals, aggregates and paired tests."""
