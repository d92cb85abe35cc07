"""Rankdeck's engine: from a list of hosts to a watched multi-node training run. No screen in here."""

__version__ = "0.1.0"
