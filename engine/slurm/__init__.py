"""Slurm seen from the workstation: what its commands say becomes typed here, and a run that is one of its jobs.

jobs.py        what squeue, scontrol and sacct say of a job                    pure
words.py       what Slurm's refusals and waiting reasons mean, and what to do  pure
cluster.py     partitions, GPUs, limits and accounts, and what is free now     pure
preflight.py   the login node asked before anything is submitted
session.py     submit, watch, stop
adopted.py     watch a job that came about without Rankdeck
"""
