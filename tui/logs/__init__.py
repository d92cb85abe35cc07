"""Logs of any size, looked at through a window: nothing here holds a log in memory."""
