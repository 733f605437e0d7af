"""Every step that a story can tell, by the word that its file uses."""

from collections.abc import Mapping
from typing import Final

from fsn.sim import coordinator_steps, disk_steps, everyday_steps, expectations, life, node_steps, standing_steps
from fsn.sim.steps import Step

__all__ = ["VERBS"]

_STEPS: Final[tuple[type[Step], ...]] = (
    everyday_steps.Put,
    everyday_steps.Delete,
    everyday_steps.ReadAll,
    everyday_steps.Advance,
    everyday_steps.WaitOnline,
    everyday_steps.AddNodes,
    everyday_steps.KillCoordinator,
    everyday_steps.StartCoordinator,
    everyday_steps.LoseDatabase,
    everyday_steps.FindDatabase,
    coordinator_steps.KillAmidUpload,
    coordinator_steps.KillCoordinatorAt,
    node_steps.Kill,
    node_steps.PowerOff,
    node_steps.Stop,
    node_steps.Die,
    node_steps.Start,
    node_steps.CutOff,
    node_steps.Pause,
    node_steps.Mend,
    node_steps.Partition,
    node_steps.Readdress,
    node_steps.JumpClock,
    node_steps.Place,
    standing_steps.Drain,
    standing_steps.CancelDrain,
    standing_steps.Maintenance,
    standing_steps.EndMaintenance,
    disk_steps.Disks,
    disk_steps.Cheat,
    disk_steps.Rot,
    disk_steps.DropChunks,
    expectations.ExpectReplicas,
    expectations.ExpectEvents,
    expectations.ExpectStatus,
    expectations.ExpectCharges,
    expectations.ExpectProofs,
    expectations.ExpectStatements,
    life.Life,
    life.Nights,
)

VERBS: Final[Mapping[str, type[Step]]] = {step.verb: step for step in _STEPS}
