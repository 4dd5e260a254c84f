"""Exploring: `program` makes operations of a test, `explore` runs them all, `verdict` judges."""
