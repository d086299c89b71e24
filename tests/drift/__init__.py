"""Drift: equal to SciPy, errors that hold, verdicts that do not hang on sizes, baselines that are found."""
