"""The table of rules. Of two that fit the same text, the earlier one is meant."""

from __future__ import annotations

from engine.diagnosis.rules import gpu, network, noise, program, rendezvous, start, system
from engine.diagnosis.rules.rule import SURE, Role, Rule, compiled, fill

RULES: tuple[Rule, ...] = (
    *system.RULES,
    *gpu.RULES,
    *rendezvous.RULES,
    *network.RULES,
    *program.RULES,
    *start.RULES,
    *noise.RULES,
)

NOISE = noise.RULES[0]

__all__ = ["NOISE", "RULES", "SURE", "Role", "Rule", "compiled", "fill"]
