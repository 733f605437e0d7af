"""HTTP, the only home of Quart and Hypercorn: the bounded front, the kit for typed operations, and what both daemons serve with it."""
