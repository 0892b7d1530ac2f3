"""Every parameter of the controller node."""

from spiking_controller.control.controller import CONTACT_REACTIONS
from spiking_controller.control.exploration import LARGEST
from spiking_controller.nodes.common.frame_prefix import FRAME_PREFIX
from spiking_controller.nodes.common.model_parameters import MODEL_PARAMETERS
from spiking_controller.nodes.common.parameters import ParameterSpec
from spiking_controller.robots.hardware import AS_TRAINED

PARAMETERS = [
    ParameterSpec("autostart", True, "Configure and activate at start; false: wait for a lifecycle manager."),
    *MODEL_PARAMETERS,
    FRAME_PREFIX,
    ParameterSpec(
        "hardware",
        AS_TRAINED,
        "The real arm, by name or file, where its joint limits differ from those of training: the stricter are kept.",
    ),
    ParameterSpec(
        "timeout",
        0.1,
        "Joint states that stay away longer are a fault, which stops the arm, s (of the node's clock).",
        0.005,
        10.0,
    ),
    ParameterSpec(
        "wall_timeout",
        2.0,
        "With simulated time: the same on the wall clock, s; simulated time may stand still.",
        0.1,
        600.0,
    ),
    ParameterSpec(
        "soft_start",
        1.0,
        "The action grows to its full size in this time after activation or a gap, s.",
        0.0,
        60.0,
        fixed=False,
    ),
    ParameterSpec(
        "torque_scale",
        1.0,
        "Share of the networks' torque that is sent; damping stays whole. Low for first motions on a real arm.",
        0.0,
        1.0,
        fixed=False,
    ),
    ParameterSpec(
        "integral_gain",
        1.0,
        "Gain of the set-point integral near the goal, 1/s; 0 switches it off.",
        0.0,
        10.0,
        fixed=False,
    ),
    ParameterSpec(
        "integral_zone", 0.1, "The set-point integral grows only this close to the goal, m.", 0.0, 1.0, fixed=False
    ),
    ParameterSpec("integral_clamp", 0.05, "Longest set-point integral, m.", 0.0, 0.1, fixed=False),
    ParameterSpec(
        "integral_patience",
        1.0,
        "How long the hand may take for a way as long as its error before the set-point integral helps, s; 0: no time.",
        0.0,
        60.0,
        fixed=False,
    ),
    ParameterSpec(
        "posture_stiffness",
        20.0,
        "Of the spring that keeps the joints from wandering while the hand holds, N·m/rad; 0 switches it off.",
        0.0,
        100.0,
        fixed=False,
    ),
    ParameterSpec(
        "disturbance_gain",
        1.0,
        "Share of what the forward model did not expect (a load, a push) that is taken off the torque; 0: none.",
        0.0,
        1.0,
        fixed=False,
    ),
    ParameterSpec(
        "contact_reaction",
        "none",
        "What a push or a hit is answered with: hold where the hand is, or ramp the torque to zero until a goal comes.",
        choices=CONTACT_REACTIONS,
        fixed=False,
    ),
    ParameterSpec(
        "following_gain",
        1.0,
        "Share of a streamed goal's motion that the arm makes by itself; 0: each goal is chased as if it rested.",
        0.0,
        1.0,
        fixed=False,
    ),
    ParameterSpec(
        "goal_latency",
        0.0,
        "How old a streamed goal is when it comes, s; it is led by its way in this time.",
        0.0,
        0.2,
        fixed=False,
    ),
    ParameterSpec(
        "exploration",
        0.0,
        "Standard deviation of noise on the networks' action, as a share of the full one; it never exceeds twice that.",
        0.0,
        LARGEST,
        fixed=False,
    ),
    ParameterSpec(
        "rate_limit_period",
        0.002,
        "The torque changes by at most what the rate limit allows in this time, s, also after lost messages.",
        0.0005,
        0.1,
    ),
    ParameterSpec(
        "reached_distance",
        0.02,
        "A goal counts as reached, for ~/status, once the hand stays this close to it, m.",
        0.0005,
        1.0,
        fixed=False,
    ),
    ParameterSpec(
        "rollback_factor",
        2.0,
        "New networks whose goals end with so many times the error of those before are rolled back; 0: none are.",
        0.0,
        100.0,
    ),
    ParameterSpec("rollback_goals", 3, "Goals that were held for 2 s or more, after which they are judged.", 1, 10),
    ParameterSpec(
        "trusted_keys",
        [""],
        'Paths of public keys (.pub.pem); only networks signed with one of them are taken; [""]: any networks are.',
    ),
    ParameterSpec("torch_num_threads", 1, "Threads that PyTorch may use.", 1, 64),
    ParameterSpec("diagnostics_period", 1.0, "Between two messages on /diagnostics, s.", 0.05, 60.0),
]
SETTINGS = (
    "soft_start",
    "torque_scale",
    "integral_gain",
    "integral_zone",
    "integral_clamp",
    "integral_patience",
    "posture_stiffness",
    "disturbance_gain",
    "contact_reaction",
    "following_gain",
    "goal_latency",
    "exploration",
)
"""Those that are fields of `control.controller.ControllerSettings`."""
