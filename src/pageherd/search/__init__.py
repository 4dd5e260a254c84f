"""Exploring: `program` turns a test into operations, `explore` runs every outcome, `verdict` judges."""
