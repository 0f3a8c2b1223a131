"""Evaluators inside training: schedule, callback and rules on their figures."""
