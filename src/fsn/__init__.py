"""fsn: a federated storage network."""

__version__ = "0.1.0"
