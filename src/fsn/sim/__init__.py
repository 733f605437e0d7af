"""Simulations: a whole network in one process, in virtual time, with every kind of fault, repeatable from a seed."""

from fsn.sim.network import Network, default_config, simulate

__all__ = ["Network", "default_config", "simulate"]
