"""Rankdeck's terminal UI: panels draw a folded `RunState`; no ssh and no subprocess in here."""
