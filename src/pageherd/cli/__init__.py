"""The doors: parse arguments, print; no logic."""
