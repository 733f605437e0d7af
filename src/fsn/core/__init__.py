"""The rules: pure functions and frozen values. Nothing here waits, reads a clock, rolls dice or touches the outside."""
