"""What every daemon stands on: configuration, logs, stages, supervision, clock, identity. Knows nothing of storage."""
