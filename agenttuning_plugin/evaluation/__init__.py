"""Evaluators made from a section, and evaluation outside of training."""
