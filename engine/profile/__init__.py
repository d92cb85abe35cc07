"""What is asked: a profile and its parts, read from YAML with every mistake named, changed, and saved again."""

from engine.profile.codec import decode, judge, load, override, to_yaml
from engine.profile.model import Batch, Node, Profile, Program, Rendezvous, Slurm, SlurmGroup
from engine.profile.read import plain_data
from engine.profile.rules import looks_secret
from engine.profile.store import difference, fingerprint, save

__all__ = [
    "Batch",
    "Node",
    "Profile",
    "Program",
    "Rendezvous",
    "Slurm",
    "SlurmGroup",
    "decode",
    "difference",
    "fingerprint",
    "judge",
    "load",
    "looks_secret",
    "override",
    "plain_data",
    "save",
    "to_yaml",
]
