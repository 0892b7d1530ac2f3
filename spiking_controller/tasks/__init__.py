"""Reaching tasks: what the network sees and does, vectorised episodes, and how well an episode went.

Importing this package registers the Gymnasium vector environments `spiking_controller/PandaReach-v0`,
`spiking_controller/FR3Reach-v0`, `spiking_controller/PlanarReach-v0`, and those of the paper, `PandaReachPaper-v0` and
`PlanarReachPaper-v0` (for `gymnasium.make_vec`).
"""

from gymnasium.envs.registration import register

for _id, _task in (
    ("PandaReach-v0", "panda_reach"),
    ("FR3Reach-v0", "fr3_reach"),
    ("PlanarReach-v0", "planar_reach"),
    ("PandaReachPaper-v0", "panda_reach_paper"),
    ("PlanarReachPaper-v0", "planar_reach_paper"),
):
    register(
        id=f"spiking_controller/{_id}",
        vector_entry_point="spiking_controller.tasks.environment:ReachVectorEnv",
        kwargs={"task": _task},
    )
