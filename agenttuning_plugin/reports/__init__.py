"""Read the output of runs: results, comparisons, explanations and pages."""
