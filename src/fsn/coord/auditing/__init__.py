"""Proofs of storage, the coordinators side of them: rounds, challenges, and what becomes of their outcomes."""
