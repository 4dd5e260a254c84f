"""What must never break: `table` names the promises, `checks` and `leaks` read them off a state."""
