"""How a body stands and walks: the joints of a skeleton at one moment of the gait.

Body frame, metres: x to the person's right, y forward, z up from the ground under the pelvis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.taxonomy import Look

Floats = NDArray[np.float64]
SIDES = (-1.0, 1.0)  # left, right

# Angles of one leg over its gait cycle in degrees, phase 0 = the heel touches the ground in front (normal adult gait).
_CYCLE = np.arange(11) / 10
_HIP_DEG = np.array([30, 27, 18, 8, -3, -10, -4, 12, 26, 32, 30.0])
_KNEE_DEG = np.array([4, 16, 14, 8, 5, 12, 38, 60, 45, 14, 4.0])
_FOOT_DEG = np.array([18, 2, 0, 0, -6, -25, -55, -45, -12, 12, 18.0])  # toe up is positive


@dataclass(frozen=True)
class Pose:
    """One moment of a person in front of a camera."""

    phase: float = 0.0  # of the gait cycle, in [0, 1)
    heading_deg: float = 0.0  # 0 faces the camera, 90 walks to the picture's right, 180 shows the back
    stride: float = 1.0  # 0 stands still, 1 walks
    elevation_deg: float = 12.0  # how far the camera looks down on the person


@dataclass(frozen=True)
class Arm:
    shoulder: Floats
    elbow: Floats
    wrist: Floats
    hand_end: Floats


@dataclass(frozen=True)
class Leg:
    hip: Floats
    knee: Floats
    ankle: Floats
    foot_deg: float


@dataclass(frozen=True)
class Skeleton:
    """Joints in the body frame; arms and legs are ordered left, right."""

    unit: float  # stature in metres
    pelvis: Floats  # middle between the hips
    neck: Floats  # base of the neck
    head: Floats  # middle of the head
    spine: Floats  # unit vector, pelvis to neck
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]


def pose_skeleton(look: Look, gender: str, pose: Pose) -> Skeleton:
    """The joints of a person at the pose's moment, the lower foot on the ground."""
    unit = look.height_m
    amount = pose.stride * look.stride
    legs = [_leg(unit, side, pose.phase + (0.5 if side < 0 else 0.0), amount, gender) for side in SIDES]
    lowest = min(_sole_z(leg, unit) for leg in legs)
    lift = np.array([0.0, 0.0, -lowest])
    legs = [Leg(leg.hip + lift, leg.knee + lift, leg.ankle + lift, leg.foot_deg) for leg in legs]
    lean = np.radians(look.lean_deg * (0.4 + 0.6 * pose.stride))
    spine = np.array([0.0, np.sin(lean), np.cos(lean)])
    pelvis = lift
    neck = pelvis + spine * 0.315 * unit
    head = neck + spine * 0.090 * unit + np.array([0.0, 0.022 * unit, 0.0])
    width = 0.104 * unit * look.shoulders * (1.0 if gender == "man" else 0.88) * (0.6 + 0.4 * look.girth)
    swing = np.radians(7) * pose.stride * np.cos(2 * np.pi * pose.phase)  # shoulders turn against the hips
    arms = tuple(_arm(look, side, pose, neck - spine * 0.035 * unit, width, swing) for side in SIDES)
    return Skeleton(unit, pelvis, neck, head, spine, (arms[0], arms[1]), (legs[0], legs[1]))


def _leg(unit: float, side: float, phase: float, amount: float, gender: str) -> Leg:
    phase %= 1.0
    hip_angle = np.radians(np.interp(phase, _CYCLE, _HIP_DEG) * amount)
    knee_angle = np.radians(3 * (1 - min(amount, 1)) + np.interp(phase, _CYCLE, _KNEE_DEG) * amount)
    foot_deg = float(np.interp(phase, _CYCLE, _FOOT_DEG) * amount)
    hip = np.array([side * (0.050 if gender == "man" else 0.054) * unit, 0.0, 0.0])
    knee = hip + 0.245 * unit * np.array([-side * 0.03, np.sin(hip_angle), -np.cos(hip_angle)])
    shin = hip_angle - knee_angle
    ankle = knee + 0.246 * unit * np.array([-side * 0.03, np.sin(shin), -np.cos(shin)])
    return Leg(hip, knee, ankle, foot_deg)


def _sole_z(leg: Leg, unit: float) -> float:
    """Height of the lowest point of the foot: heel or toe."""
    pitch = np.radians(leg.foot_deg)
    down = 0.044 * unit * np.cos(pitch)
    return float(
        min(leg.ankle[2] - down - 0.03 * unit * np.sin(pitch), leg.ankle[2] - down + 0.105 * unit * np.sin(pitch))
    )


def _arm(look: Look, side: float, pose: Pose, line: Floats, width: float, swing: float) -> Arm:
    unit = look.height_m
    leg_phase = pose.phase + (0.5 if side < 0 else 0.0)
    forward = np.cos(2 * np.pi * (leg_phase + 0.5))  # opposite to the leg of the same side
    if look.arms == "pockets":
        upper, elbow, out = np.radians(-14 + 4 * forward * pose.stride), np.radians(34), 0.20
    elif look.arms == "phone" and side > 0:
        upper, elbow, out = np.radians(24), np.radians(98), 0.06
    else:
        reach = look.arm_swing * pose.stride * forward
        upper, elbow, out = np.radians(2 + 22 * reach), np.radians(14 + 12 * max(reach, 0) + 5), 0.13
    shoulder = line + np.array([side * width * np.cos(swing), side * width * np.sin(swing), 0.0])
    inward = 0.16 if look.arms == "pockets" else (0.28 if look.arms == "phone" and side > 0 else 0.05)
    upper_way = np.array([side * out, np.sin(upper), -np.cos(upper)])
    lower_way = np.array([-side * inward, np.sin(upper + elbow), -np.cos(upper + elbow)])
    lower_way /= np.linalg.norm(lower_way)
    elbow_at = shoulder + 0.172 * unit * upper_way / np.linalg.norm(upper_way)
    wrist = elbow_at + 0.148 * unit * lower_way
    return Arm(shoulder, elbow_at, wrist, wrist + 0.098 * unit * lower_way)
