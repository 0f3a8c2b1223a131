"""Reads what runs left: results, comparisons, explanations and pages."""
