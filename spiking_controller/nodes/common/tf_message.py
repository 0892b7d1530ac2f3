"""tf2_msgs/TFMessage, also where only the wheels of `[ros]` are installed, which come without tf2_msgs.

There, the type support of another message that is one list of messages (MarkerArray) is copied and given TFMessage's
name, hash and member. Only serialised messages go through it, so that the middleware needs nothing but these; `rosbags`
knows the message's layout and hash. The layout of the copied structures is that of ROS 2 Jazzy (in
rosidl_runtime_c, rosidl_typesupport_fastrtps_cpp and rosidl_typesupport_introspection_c); what does not look like it is
refused.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped
from rosbags.typesys import Stores, get_typestore
from visualization_msgs.msg import MarkerArray

from spiking_controller.errors import SpikingControllerError
from spiking_controller.robots.limits import FloatArray
from spiking_controller.units import NANOSECONDS

TYPE_NAME: Final = "tf2_msgs/msg/TFMessage"
STORE: Final = get_typestore(Stores.ROS2_JAZZY)
_FAST_RTPS: Final = b"rosidl_typesupport_fastrtps_c"
_INTROSPECTION: Final = b"rosidl_typesupport_introspection_c"
_UNFIT: Final = (
    "tf2_msgs is not installed, and this ROS is not the Jazzy with Fast DDS that the wheels bring; install tf2_msgs to "
    "publish /tf."
)


class Transform(NamedTuple):
    """Where a frame lies in its parent.

    Attributes:
        parent, child: names of the frames.
        translation: m, [3].
        rotation: quaternion x, y, z, w, [4].
    """

    parent: str
    child: str
    translation: FloatArray
    rotation: FloatArray


def serialised(time: int, transforms: Sequence[Transform]) -> bytes:
    """A TFMessage as bytes, which a publisher of `message_type()` takes.

    Args:
        time: stamp of all transforms, ns.
        transforms: its content.
    """
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(time, NANOSECONDS))
    vector, quaternion = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
    transform, stamped = types["geometry_msgs/msg/Transform"], types["geometry_msgs/msg/TransformStamped"]
    header = types["std_msgs/msg/Header"]
    content = [
        stamped(
            header=header(stamp=stamp, frame_id=each.parent),
            child_frame_id=each.child,
            transform=transform(
                translation=vector(*map(float, each.translation)), rotation=quaternion(*map(float, each.rotation))
            ),
        )
        for each in transforms
    ]
    return bytes(STORE.serialize_cdr(types[TYPE_NAME](transforms=content), TYPE_NAME))


def transforms_in(data: bytes) -> list[Transform]:
    """What `serialised` was given, from the bytes of a TFMessage."""
    message: Any = STORE.deserialize_cdr(data, TYPE_NAME)
    return [
        Transform(
            each.header.frame_id,
            each.child_frame_id,
            np.array([getattr(each.transform.translation, axis) for axis in "xyz"]),
            np.array([getattr(each.transform.rotation, axis) for axis in "xyzw"]),
        )
        for each in message.transforms
    ]


@cache
def message_type() -> Any:
    """The class to create publishers and raw subscriptions with.

    Raises:
        SpikingControllerError: tf2_msgs is not installed, and this ROS is not the one whose wheels lack it.
    """
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return _stand_in()
    return TFMessage


class _TypeSupport(ctypes.Structure):
    """rosidl_message_type_support_t."""

    _fields_ = (
        ("identifier", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("find", ctypes.c_void_p),
        ("type_hash", ctypes.c_void_p),
        ("description", ctypes.c_void_p),
        ("sources", ctypes.c_void_p),
    )


class _Callbacks(ctypes.Structure):
    """message_type_support_callbacks_t of rosidl_typesupport_fastrtps_cpp: names, then functions."""

    _fields_ = (("namespace", ctypes.c_char_p), ("name", ctypes.c_char_p), ("functions", ctypes.c_void_p * 5))


class _Members(ctypes.Structure):
    """rosidl_typesupport_introspection_c__MessageMembers."""

    _fields_ = (
        ("namespace", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("count", ctypes.c_uint32),
        ("size", ctypes.c_size_t),
        ("has_key", ctypes.c_bool),
        ("members", ctypes.c_void_p),
        ("functions", ctypes.c_void_p * 2),
    )


class _Member(ctypes.Structure):
    """rosidl_typesupport_introspection_c__MessageMember."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type_id", ctypes.c_uint8),
        ("string_bound", ctypes.c_size_t),
        ("members", ctypes.c_void_p),
        ("is_key", ctypes.c_bool),
        ("is_array", ctypes.c_bool),
        ("array_size", ctypes.c_size_t),
        ("is_bounded", ctypes.c_bool),
        ("offset", ctypes.c_uint32),
        ("default", ctypes.c_void_p),
        ("functions", ctypes.c_void_p * 6),
    )


class _TypeHash(ctypes.Structure):
    """rosidl_type_hash_t."""

    _fields_ = (("version", ctypes.c_uint8), ("value", ctypes.c_uint8 * 32))


_Find = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_GetHash = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def _support_of(message: Any, identifier: bytes) -> _TypeSupport | None:
    """A message's type support of one kind."""
    message.__class__.__import_type_support__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = pointer(message.__class__._TYPE_SUPPORT, None)
    found = _Find(_TypeSupport.from_address(address).find)(address, identifier)
    return _TypeSupport.from_address(found) if found else None


def _stand_in() -> Any:
    """A message class whose type support says TFMessage; there is one for the life of the process."""
    fast, described = _support_of(MarkerArray, _FAST_RTPS), _support_of(MarkerArray, _INTROSPECTION)
    element = _support_of(TransformStamped, _INTROSPECTION)
    if fast is None or described is None or element is None:
        raise SpikingControllerError(_UNFIT)
    supports = {
        _FAST_RTPS: _TypeSupport.from_buffer_copy(fast),
        _INTROSPECTION: _TypeSupport.from_buffer_copy(described),
    }
    callbacks = _Callbacks.from_buffer_copy(_Callbacks.from_address(supports[_FAST_RTPS].data))
    members = _Members.from_buffer_copy(_Members.from_address(supports[_INTROSPECTION].data))
    if (callbacks.namespace, callbacks.name, members.name, members.count) != (
        b"visualization_msgs::msg",
        b"MarkerArray",
        b"MarkerArray",
        1,
    ):
        raise SpikingControllerError(_UNFIT)
    member = _Member.from_buffer_copy(_Member.from_address(members.members))
    member.name, member.members = b"transforms", ctypes.addressof(element)
    callbacks.namespace, callbacks.name = b"tf2_msgs::msg", b"TFMessage"
    members.namespace, members.name, members.members = b"tf2_msgs__msg", b"TFMessage", ctypes.addressof(member)
    supports[_FAST_RTPS].data = ctypes.addressof(callbacks)
    supports[_INTROSPECTION].data = ctypes.addressof(members)
    digest = bytes.fromhex(STORE.hash_rihs01(TYPE_NAME).removeprefix("RIHS01_"))
    type_hash = _TypeHash(1, (ctypes.c_uint8 * 32)(*digest))

    @_GetHash
    def get_hash(handle: int) -> int:
        return ctypes.addressof(type_hash)

    @_Find
    def find(handle: int, identifier: bytes) -> int | None:
        return ctypes.addressof(supports[identifier]) if identifier in supports else None

    for support in supports.values():
        support.type_hash = ctypes.cast(get_hash, ctypes.c_void_p).value
        support.find = ctypes.cast(find, ctypes.c_void_p).value
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    donor = MarkerArray.__class__

    class Metaclass(type):
        _CREATE_ROS_MESSAGE = donor._CREATE_ROS_MESSAGE
        _CONVERT_FROM_PY = donor._CONVERT_FROM_PY
        _CONVERT_TO_PY = donor._CONVERT_TO_PY
        _DESTROY_ROS_MESSAGE = donor._DESTROY_ROS_MESSAGE
        _TYPE_SUPPORT = make(ctypes.addressof(supports[_FAST_RTPS]), None, None)
        # The middleware keeps pointers to these.
        _KEPT = (supports, callbacks, members, member, type_hash, get_hash, find)

    class TFMessage(metaclass=Metaclass):
        """A TFMessage without fields: it travels serialised."""

    # As that of tf2_msgs: the recorder names types by it.
    TFMessage.__module__ = "tf2_msgs.msg"
    return TFMessage
