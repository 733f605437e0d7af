"""Keeping what was stored: repair, draining, reconciliation; workers that share their work through the database."""
