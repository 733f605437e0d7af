"""The bounded HTTP/1.1 front: subclasses of Hypercorn's own classes; why, and what they change: docs/decisions/0006."""
