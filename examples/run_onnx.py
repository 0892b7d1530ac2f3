"""Drives the simulated Panda with an exported policy: onnxruntime and MuJoCo, nothing of this package.

    spiking_controller export models/panda_reach.safetensors --onnx panda_reach.onnx
    python examples/run_onnx.py panda_reach.onnx models/panda.xml

A C++ controller does the same with onnxruntime's C++ interface: at every control period it runs the session and keeps
action and state; at every joint state it applies the torque law. On a real arm, torques must also pass joint limits and
the rate limit of the contract, as in docs/deploy.md.
"""

import json
import sys

import mujoco
import numpy as np
import onnxruntime

GOALS = np.array([[0.45, -0.25, 0.45], [0.35, 0.35, 0.6], [0.5, 0.1, 0.3]])
"""m, in the base frame."""
HOME = np.pi / 4 * np.array([0, -1, 0, -3, 0, 2, 1])
"""Joint angles at the start, rad."""
HOLD = 4.0
"""Time for each goal, s."""


def main(policy: str, scene: str) -> None:
    """Go to the goals one after the other."""
    session = onnxruntime.InferenceSession(policy, providers=["CPUExecutionProvider"])
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    contract, law = metadata["contract"], metadata["torque_law"]
    controlled = contract["controlled_joints"]
    state = {
        name: np.full(entry["shape"], entry["value"], np.float32) for name, entry in metadata["initial_state"].items()
    }

    model = mujoco.MjModel.from_xml_path(scene)
    data = mujoco.MjData(model)
    joints = [model.joint(name) for name in contract["joint_names"]]
    place, speed = [int(joint.qposadr[0]) for joint in joints], [int(joint.dofadr[0]) for joint in joints]
    limit, rate = np.array(contract["torque_limit"]), np.array(contract["torque_rate_limit"])
    period = model.opt.timestep
    substeps = round(contract["control_period"] / period)
    data.qpos[place] = HOME
    action = np.zeros((1, controlled), np.float32)
    torque = np.zeros(len(joints))
    for goal in GOALS:
        for step in range(round(HOLD / period)):
            position, velocity = data.qpos[place], data.qvel[speed]
            if step % substeps == 0:
                inputs = {"joint_position": position, "joint_velocity": velocity, "goal": goal}
                given = {name: np.array(values)[None] for name, values in inputs.items()}
                action, _, *after = session.run(None, {**given, "previous_action": action, **state})
                state = dict(zip(state, after, strict=True))
            wanted = np.empty(len(joints))
            wanted[:controlled] = np.array(law["torque_scale"]) * action[0] - law["damping"] * velocity[:controlled]
            away = np.array(law["locked_position"]) - position[controlled:]
            wanted[controlled:] = law["locked_stiffness"] * away - law["locked_damping"] * velocity[controlled:]
            torque += np.clip(np.clip(wanted, -limit, limit) - torque, -rate * period, rate * period)
            data.qfrc_applied[speed] = torque
            mujoco.mj_step(model, data)
        hand = data.site("hand_tcp").xpos
        print(f"goal {goal.tolist()} m: the hand is {1000 * np.linalg.norm(hand - goal):.2f} mm away")


if __name__ == "__main__":
    main(*sys.argv[1:])
