"""The whole battery.

Without it a group of attacks could be written and never run.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack
from orchestrator.attacks.contract import CONTRACT_ATTACKS
from orchestrator.attacks.files import FILE_ATTACKS
from orchestrator.attacks.floods import FLOOD_ATTACKS
from orchestrator.attacks.limits import LIMIT_ATTACKS
from orchestrator.attacks.neighbours import NEIGHBOUR_ATTACKS
from orchestrator.attacks.network import NETWORK_ATTACKS
from orchestrator.attacks.privileges import PRIVILEGE_ATTACKS
from orchestrator.attacks.processes import PROCESS_ATTACKS
from orchestrator.attacks.system_calls import SYSTEM_CALL_ATTACKS

#: Every attack, group by group, in the order of a report.
BATTERY: Final[tuple[Attack, ...]] = (
    *NETWORK_ATTACKS,
    *PRIVILEGE_ATTACKS,
    *SYSTEM_CALL_ATTACKS,
    *FILE_ATTACKS,
    *PROCESS_ATTACKS,
    *LIMIT_ATTACKS,
    *FLOOD_ATTACKS,
    *CONTRACT_ATTACKS,
    *NEIGHBOUR_ATTACKS,
)
