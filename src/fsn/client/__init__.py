"""The HTTP API from a trio program: httpx, typed values, the error tree. Knows neither half of the daemons."""

from fsn.client.client import Client
from fsn.client.connection import Timeouts
from fsn.client.retrying import Retrying
from fsn.client.values import Balance, File, FileHealth, Node, ProofRound, Quote, Session, User

__all__ = [
    "Balance",
    "Client",
    "File",
    "FileHealth",
    "Node",
    "ProofRound",
    "Quote",
    "Retrying",
    "Session",
    "Timeouts",
    "User",
]
