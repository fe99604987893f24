"""Points that come and go at random: a machine of each structure, beside a dict.

The long form, by hand:
python -m pytest tests/test_dynamic_machine.py --hypothesis-profile=thorough
"""

import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from halfspace import levels

from .dynamic_model import DynamicMachine
from .sizes import JIT


@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize(
    "structure", ["kd_tree", "scan", "partition_tree", "cascade", "shallow_cuttings", "auto"]
)
def test_machine(structure, background, monkeypatch):
    if background and structure not in ("kd_tree", "auto"):
        pytest.skip("what is in the segments is all the same to the thread")
    if structure == "shallow_cuttings" and JIT:  # levels even for few points
        monkeypatch.setattr(levels, "COARSEST_SHARE", 4)
        monkeypatch.setattr(levels, "FINEST_DEPTH", 2)
        monkeypatch.setattr(levels, "POINTS_PER_CONE", dict.fromkeys(range(1, 7), 0.05))
    dims = (2, 3) if structure == "shallow_cuttings" else (2, 3, 8)
    kind = type(
        "Machine",
        (DynamicMachine,),
        {"structure": structure, "background": background, "dims": dims},
    )
    most = settings().max_examples
    thorough = most >= 500
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=most if thorough else math.ceil(0.2 * most),
            stateful_step_count=50 if thorough else 20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
