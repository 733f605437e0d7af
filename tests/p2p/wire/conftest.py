"""Property tests of the wire: the same examples in every run, so that a failure on one machine is a failure on all."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("repeatable")
