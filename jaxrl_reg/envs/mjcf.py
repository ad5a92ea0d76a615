"""The bodies of Gymnasium's MuJoCo tasks as models of our own, so that no other package is needed to simulate them.

Lengths, ranges, gains and contact parameters are those of Gymnasium's models (``hopper.xml``, ``walker2d.xml``,
``half_cheetah.xml``, ``ant.xml``); a test compiles both and compares every number that the physics reads. The order of
bodies, joints and motors is theirs too, because observations and actions are read off in it.
"""

from __future__ import annotations

from collections.abc import Iterable

_GROUND = '<geom name="ground" type="plane" size="0 0 1" contype="1" conaffinity="1" condim="3"/>'
_PLANAR_ROOT = """
<joint class="root" name="x" type="slide" axis="1 0 0"/>
<joint class="root" name="z" type="slide" axis="0 0 1" ref="{height}"/>
<joint class="root" name="pitch" type="hinge" axis="0 1 0"/>
"""
_ROOT = '<default class="root"><joint armature="0" damping="0" stiffness="0"/></default>'


def model(name: str) -> str:
    """The MJCF text of ``hopper``, ``walker2d``, ``walker2d_v5``, ``halfcheetah`` or ``ant``."""
    return _MODELS[name]


def _whole(name: str, option: str, default: str, compiler: str, trunk: str, motors: Iterable[tuple[str, float]]) -> str:
    actuators = "".join(f'<motor joint="{joint}" gear="{gear}" ctrlrange="-1 1"/>' for joint, gear in motors)
    return (
        f'<mujoco model="{name}"><compiler {compiler}/><option {option}/><default>{default}</default>'
        f"<worldbody>{_GROUND}{trunk}</worldbody><actuator>{actuators}</actuator></mujoco>"
    )


def _part(name: str, at: str, joint: str, geom: str, *inside: str) -> str:
    """A body hinged to the one around it, of one capsule."""
    shape = f'<geom name="{name}" {geom}/>'
    return f'<body name="{name}" pos="{at}"><joint name="{name}" {joint}/>{shape}{"".join(inside)}</body>'


def _leg(side: str, foot: float, friction: float) -> str:
    """Thigh, shin and foot of hopper and walker; ``foot`` is its half length without the ends, and so on."""
    ankle = {0.195: 0.13, 0.1: 0.2}[foot]  # how far the middle of the foot's body lies in front of the ankle, m
    bends = 'axis="0 -1 0" range="-150 0"'
    return _part(
        f"{side}thigh",
        "0 0 -0.2",
        bends,
        'pos="0 0 -0.225" size="0.05 0.225" friction="0.9"',
        _part(
            f"{side}shin",
            "0 0 -0.7",
            f'{bends} pos="0 0 0.25"',
            'size="0.04 0.25" friction="0.9"',
            _part(
                f"{side}foot",
                f"{ankle} 0 -0.35",
                f'axis="0 -1 0" range="-45 45" pos="{-ankle} 0 0.1"',
                f'pos="{-ankle / 2} 0 0.1" euler="0 -90 0" size="0.06 {foot}" friction="{friction}"',
            ),
        ),
    )


def _upright(height: float, *legs: str) -> str:
    root = _PLANAR_ROOT.format(height=height)
    torso = '<geom name="torso" size="0.05 0.2" friction="0.9"/>'
    return f'<body name="torso" pos="0 0 {height}">{root}{torso}{"".join(legs)}</body>'


def _walker(left: float, right: float) -> str:
    """Two of the hopper's legs with longer lever arms; the feet's friction is what differs between the versions."""
    return _whole(
        "walker2d",
        'timestep="0.002" integrator="RK4"',
        '<joint armature="0.01" damping="0.1"/>'
        f'<geom type="capsule" contype="1" conaffinity="0" condim="3" friction="0.7 0.1 0.1"/>{_ROOT}',
        'angle="degree"',
        _upright(1.25, _leg("right_", 0.1, right), _leg("left_", 0.1, left)),
        [(f"{side}_{joint}", 100) for side in ("right", "left") for joint in ("thigh", "shin", "foot")],
    )


_HOPPER = _whole(
    "hopper",
    'timestep="0.002" integrator="RK4"',
    '<joint armature="1" damping="1"/>'
    '<geom type="capsule" contype="1" conaffinity="1" condim="1" margin="0.001" solref="0.02 1" solimp="0.8 0.8 0.01"/>'
    + _ROOT,
    'angle="degree"',
    _upright(1.25, _leg("", 0.195, 2.0)),
    [("thigh", 200), ("shin", 200), ("foot", 200)],
)

# Part: where it hangs, the range of its joint (rad), stiffness (N m/rad), damping (N m s/rad), gear (N m); then the
# capsule's middle, its turn about y (rad) and half its length without the ends.
_CHEETAH_LEGS = {
    "back": {
        "thigh": ("-0.5 0 0", "-0.52 1.05", 240, 6, 120, "0.1 0 -0.13", -3.8, 0.145),
        "shin": ("0.16 0 -0.25", "-0.785 0.785", 180, 4.5, 90, "-0.14 0 -0.07", -2.03, 0.15),
        "foot": ("-0.28 0 -0.14", "-0.4 0.785", 120, 3, 60, "0.03 0 -0.097", -0.27, 0.094),
    },
    "front": {
        "thigh": ("0.5 0 0", "-1 0.7", 180, 4.5, 120, "-0.07 0 -0.12", 0.52, 0.133),
        "shin": ("-0.14 0 -0.24", "-1.2 0.87", 120, 3, 60, "0.065 0 -0.09", -0.6, 0.106),
        "foot": ("0.13 0 -0.18", "-0.5 0.5", 60, 1.5, 30, "0.045 0 -0.07", -0.6, 0.07),
    },
}


def _cheetah_leg(end: str) -> str:
    inside = ""
    for part, (at, limits, stiffness, damping, _, middle, turn, half) in reversed(_CHEETAH_LEGS[end].items()):
        inside = _part(
            f"{end}_{part}",
            at,
            f'axis="0 1 0" range="{limits}" stiffness="{stiffness}" damping="{damping}"',
            f'pos="{middle}" euler="0 {turn} 0" size="0.046 {half}"',
            inside,
        )
    return inside


_CHEETAH_DENSITY = 660.8849500774735  # kg/m^3, for 14 kg in all

_CHEETAH = _whole(
    "halfcheetah",
    'timestep="0.01" integrator="Euler"',
    '<joint armature="0.1" solreflimit="0.02 1" solimplimit="0 0.8 0.03"/>'
    f'<geom type="capsule" contype="1" conaffinity="0" condim="3" density="{_CHEETAH_DENSITY}" friction="0.4 0.1 0.1" '
    f'solref="0.02 1" solimp="0 0.8 0.01"/>{_ROOT}',
    'angle="radian"',
    '<body name="torso" pos="0 0 0.7">'
    + _PLANAR_ROOT.format(height=0)
    + '<geom name="torso" fromto="-0.5 0 0 0.5 0 0" size="0.046"/>'
    + '<geom name="head" pos="0.6 0 0.1" euler="0 0.87 0" size="0.046 0.15"/>'
    + f"{_cheetah_leg('back')}{_cheetah_leg('front')}</body>",
    [(f"{end}_{part}", values[4]) for end, parts in _CHEETAH_LEGS.items() for part, values in parts.items()],
)

# Where each leg points, the axis of its ankle, and the ankle's range (degrees), in the order of Gymnasium's bodies.
_ANT_LEGS = {
    "front_left": (1, 1, "-1 1 0", "30 70"),
    "front_right": (-1, 1, "1 1 0", "-70 -30"),
    "back_left": (-1, -1, "-1 1 0", "-70 -30"),
    "back_right": (1, -1, "1 1 0", "30 70"),
}


def _ant_leg(name: str) -> str:
    x, y, axis, limits = _ANT_LEGS[name]
    out = f"{0.2 * x} {0.2 * y} 0"
    shin = _part(f"{name}_ankle", out, f'axis="{axis}" range="{limits}"', _ray(0.4 * x, 0.4 * y))
    thigh = _part(f"{name}_hip", out, 'axis="0 0 1" range="-30 30"', _ray(0.2 * x, 0.2 * y), shin)
    return f'<body name="{name}"><geom name="{name}" {_ray(0.2 * x, 0.2 * y)}/>{thigh}</body>'


def _ray(x: float, y: float) -> str:
    return f'fromto="0 0 0 {x} {y} 0" size="0.08"'


_ANT = _whole(
    "ant",
    'timestep="0.01" integrator="RK4"',
    '<joint type="hinge" armature="1" damping="1"/>'
    '<geom type="capsule" contype="1" conaffinity="0" condim="3" density="5" friction="1 0.5 0.5" margin="0.01"/>'
    + _ROOT,
    'angle="degree"',
    '<body name="torso" pos="0 0 0.75"><geom name="torso" type="sphere" size="0.25"/>'
    '<joint class="root" name="root" type="free"/>' + "".join(map(_ant_leg, _ANT_LEGS)) + "</body>",
    [(f"{leg}_{joint}", 150) for leg in ("back_right", *tuple(_ANT_LEGS)[:3]) for joint in ("hip", "ankle")],
)

_MODELS = {
    "hopper": _HOPPER,
    "walker2d": _walker(left=1.9, right=0.9),
    "walker2d_v5": _walker(left=1.9, right=1.9),
    "halfcheetah": _CHEETAH,
    "ant": _ANT,
}
