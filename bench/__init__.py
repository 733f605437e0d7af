"""Benchmarks: whole networks of real processes beside the limits of the same machine in the same run. Never part of the tests."""
