"""`spiking_controller arm check`: says what an arm's file lacks or has wrong, with the fix, and what was made of it."""

import argparse
from pathlib import Path

import mujoco
import numpy as np

from spiking_controller.errors import RobotModelError
from spiking_controller.evaluation.tables import plain_table
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import DEFAULT_TORQUE_RATE, Arm, arm_of, get_arm, is_arm_file
from spiking_controller.robots.arm_file import ArmFile, read_arm_file
from spiking_controller.robots.description import touching_pairs
from spiking_controller.robots.mujoco_model import joint_addresses
from spiking_controller.tasks.goals import is_free
from spiking_controller.tasks.reach import ReachTask, task_of

_POSTURES = 400
_FEW_FREE = 0.1
_OFTEN = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which arm."""
    parser.add_argument("arm", help="the path of an arm's file, or the name of a shipped arm")


def run(args: argparse.Namespace) -> int:
    """Check it.

    Returns:
        0 if networks can be trained for the arm, 1 if something is missing or wrong.
    """
    path = Path(args.arm) if is_arm_file(args.arm) else share_path("config", "arms", f"{args.arm}.yaml")
    try:
        file = read_arm_file(path)
        made, problems = arm_of(file, path.resolve(), str(path.resolve()))
    except RobotModelError as error:
        made, problems = None, [str(error)]
    if made is None:
        for problem in problems:
            print(f"missing or wrong: {problem}")
        return 1
    arm = get_arm(args.arm)
    task = task_of(arm)
    print(description(arm, task))
    problems, notes = check(arm, file, task)
    for problem in problems:
        print(f"missing or wrong: {problem}")
    for note in notes:
        print(f"note: {note}")
    if not problems:
        print(f"Nothing is missing. Look at it: spiking_controller arm show {args.arm}")
    return 1 if problems else 0


def description(arm: Arm, task: ReachTask) -> str:
    """What was made of the file and the description, as text."""
    limits, (lower, upper) = arm.limits, task.soft_bounds
    rows = [
        [
            name,
            "driven" if index < arm.controlled_joints else "locked",
            f"{arm.home[index]:.3f}",
            f"{limits.position_lower[index]:.3f} to {limits.position_upper[index]:.3f}",
            f"{lower[index]:.3f} to {upper[index]:.3f}",
            f"{limits.velocity[index]:.3g}",
            f"{limits.torque[index]:.3g}",
            f"{limits.torque_rate[index]:.4g}",
        ]
        for index, name in enumerate(arm.joint_names)
    ]
    header = ["joint", "", "home, rad", "limits, rad", "soft limits, rad", "rad/s", "N·m", "N·m/s"]
    shoulder = ", ".join(f"{value:.3f}" for value in arm.shoulder)
    lines = [
        f"{arm.name}: {arm.description.path}",
        f"hand {arm.hand_site} in {arm.base_frame}, goals of {arm.goal_dimensions} coordinates, "
        f"reach {arm.reach:.3f} m around ({shoulder})",
    ]
    if arm.description.rigid_pairs:
        lines.append(f"never touch: {', '.join(' and '.join(pair) for pair in arm.description.rigid_pairs)}")
    return "\n".join([*lines, "", plain_table(header, rows), ""])


def check(arm: Arm, file: ArmFile, task: ReachTask) -> tuple[list[str], list[str]]:
    """What keeps networks from being trained, and what should be looked at."""
    problems, notes = [], []
    lower, upper = task.soft_bounds
    for name, angle, low, high in zip(arm.joint_names, arm.home, lower, upper, strict=True):
        if not low < angle < high:
            problems.append(
                f"home of {name} is {angle:.3f} rad, outside of its soft limits of {low:.3f} to {high:.3f}; move home "
                "inside, or widen limits."
            )
    model = arm.load_model(visuals=False)
    position, velocity = joint_addresses(model, arm.joint_names)
    if at_home := touching_pairs(model, arm.home[None], position):
        problems.append(
            f"at home {_named(list(at_home))} touch; change home, or add the pair to never_touch if the shapes are "
            "coarser than the arm."
        )
    hand = arm.chain.position(arm.home)
    if task.minimum_goal_height is not None and hand[2] <= task.minimum_goal_height:
        problems.append(
            f"at home the hand is at z = {hand[2]:.3f} m, and goals must lie above {task.minimum_goal_height} m of the "
            "base; change home, or mount the base higher in the description."
        )
    problems += _check_postures(arm, task, model, position)
    for name, low, high in zip(arm.joint_names, lower, upper, strict=True):
        if high - low > 2.0 * np.pi + 1e-6:
            notes.append(
                f"{name} may turn more than once; training is quicker with limits of -3.14 to 3.14 rad, and the arm "
                "never winds up its cables."
            )
    for value, what, typical in (
        (model.dof_armature[velocity], "armature", "0.1 kg·m²"),
        (model.dof_damping[velocity], "damping", "1.0 N·m·s/rad"),
    ):
        if still := [name for name, each in zip(arm.joint_names, value, strict=True) if each <= 0.0]:
            notes.append(f"{', '.join(still)} have no {what}, which real joints have; give {what} ({typical}, say).")
    if file.limits.torque_rate is None:
        notes.append(
            f"limits.torque_rate is not given; {DEFAULT_TORQUE_RATE:g} N·m/s is taken, what Franka's arms allow."
        )
    if arm.checkpoint is None:
        notes.append("checkpoint is not given: train networks, then name their file here, or with --model.")
    elif not arm.checkpoint.is_file():
        notes.append(f"checkpoint {arm.checkpoint} is not there yet.")
    return problems, notes


def _check_postures(arm: Arm, task: ReachTask, model: mujoco.MjModel, addresses: np.ndarray) -> list[str]:
    """Whether enough random postures are possible, and which links touch in many."""
    lower, upper = task.soft_bounds
    m = task.controlled_joints
    postures = np.tile(arm.home, (_POSTURES, 1))
    postures[:, :m] = np.random.default_rng(0).uniform(lower[:m], upper[:m], (_POSTURES, m))
    possible = is_free(task, postures)
    if task.minimum_goal_height is not None:
        possible &= arm.chain.position(postures)[:, 2] > task.minimum_goal_height
    print(f"{100 * possible.mean():.0f} % of random postures touch nothing and keep the hand above the floor.\n")
    if possible.mean() >= _FEW_FREE:
        return []
    often = {
        pair: count for pair, count in touching_pairs(model, postures, addresses).items() if count >= _OFTEN * _POSTURES
    }
    reason = (
        f"{_named(list(often))} touch in many; add pairs that cannot really touch to never_touch"
        if often
        else ("most have the hand below the floor; mount the base higher, or narrow limits")
    )
    return [f"only {100 * possible.mean():.1f} % of random postures are possible: {reason}."]


def _named(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{first} and {second}" for first, second in pairs)
