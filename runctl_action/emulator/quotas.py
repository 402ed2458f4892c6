"""Service Quotas: EC2's quotas of vCPUs, of an account that has asked for enough; the fault `quota` makes one 0."""

from __future__ import annotations

import re

from runctl_action.emulator.price_table import SHAPES
from runctl_action.emulator.state import World
from runctl_action.emulator.wire import Answer, ApiError, Call, as_json

VCPUS = 256.0
# By code: its name, the market, and which types count against it.
_QUOTAS = {
    "L-1216C47A": (
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        "on-demand",
        r"(?:a|c|d|h|im?|is|m|r|t|z)\d",
    ),
    "L-DB2E81BA": ("Running On-Demand G and VT instances", "on-demand", r"(?:gr?|vt)\d"),
    "L-417A185B": ("Running On-Demand P instances", "on-demand", r"p\d"),
    "L-34B43A08": (
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
        "spot",
        r"(?:a|c|d|h|im?|is|m|r|t|z)\d",
    ),
    "L-3819A6DF": ("All G and VT Spot Instance Requests", "spot", r"(?:gr?|vt)\d"),
    "L-7212CCBC": ("All P4, P3 and P2 Spot Instance Requests", "spot", r"p[2-4]"),
    "L-C4BD4855": ("All P5 Spot Instance Requests", "spot", r"p5"),
}


class Quotas:
    def __init__(self, world: World) -> None:
        self._world = world

    def handle(self, call: Call) -> Answer | None:
        """None for what is moto's. Raises ApiError."""
        code = call.json.get("QuotaCode", "")
        if call.action != "GetServiceQuota" or call.json.get("ServiceCode") != "ec2":
            return None
        if code not in _QUOTAS:
            raise ApiError("NoSuchResourceException", "The request failed because the specified quota does not exist.")
        name, market, types = _QUOTAS[code]
        is_used_up = any(
            self._world.faults.is_set("quota", market=market, type=kind) for kind in SHAPES if re.match(types, kind)
        )
        value = 0.0 if is_used_up else VCPUS
        return as_json({"Quota": {"ServiceCode": "ec2", "QuotaCode": code, "QuotaName": name, "Value": value}})
