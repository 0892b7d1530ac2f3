"""What the page shows and asks: widgets beside the 3D scene. Everything a visitor does becomes a request in a queue."""

import html
import math
import textwrap
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import viser
from numpy.typing import NDArray

from spiking_controller.robots.limits import FloatArray
from spiking_controller.streams.moments import CURVES, Curves, Health, Moment
from spiking_controller.viewing.arm_scene import BLUE, GREEN, ORANGE, RED, VIOLET, ArmModel, ArmView, Arrow, Way

LIVE = "live graph"
CAMERA, LOOK_AT, FIELD_OF_VIEW = (1.75, 1.3, 1.15), (0.22, -0.02, 0.38), 0.72
"""Where the page first looks from, m, and its vertical angle of view, rad."""
HANDLE_SIZE = 0.22
"""Length of an arrow of the goal's handle, m."""
LONGEST_PUSH = 40.0
"""Of a push by hand, N."""
SETTLING = 1.0
"""A goal that was let go has so long to be accepted before the handle returns, s."""
GHOST_DISTANCE = 0.02
"""A future in which the hand goes less far looks like the present, m."""
SAID = 6.0
"""How long an answer is shown, s."""
UNITS = {
    "distance": ("mm", 1000.0, 20.0),
    "prediction error": ("mrad", 1000.0, 1.0),
    "torque": ("N·m", 1.0, 5.0),
    "disturbance": ("N·m", 1.0, 5.0),
    "spikes": ("1/s", 1.0, 1000.0),
}
"""Of the curves: what they are shown in, how many of these are one SI unit, and the axis' least height: noise looks
small."""
CURVE_HEIGHT = 50
TIME_HEIGHT = 28
"""Of an axis with the time, on the last curve only."""
WORDS_PERIOD = 0.25
"""Between two changes of the words, s: nobody reads faster."""
SURE = 0.5
"""From this confidence on the mass in the hand is told."""
SLIDERS = {
    "payload": ("Payload, kg", 0.0, 3.0, 0.1),
    "friction": ("Friction, times", 0.0, 4.0, 0.1),
    "torque share": ("Torque share", 0.0, 1.0, 0.05),
}
"""What visitors can set: label, least and most, step."""
LEVELS = ("good", "warning", "error", "stale")
SHADES = {"idle": "#888888", "reaching": "#1971c2", "reached": "#2f9e44", "fault": "#e03131"}
SPEEDS = ("0.25", "0.5", "1", "2", "4")


class Request(NamedTuple):
    """What a visitor asks for: one of the names in `node.Viewer`, and its value."""

    name: str
    value: Any = None


class Page:
    """One page for everybody who has its address.

    Attributes:
        words: what is written on it, as HTML, by what it is about.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        model: ArmModel,
        requests: "SimpleQueue[Request]",
        bags: Sequence[str],
        read_only: bool,
        dark: bool,
    ) -> None:
        """Build it.

        Args:
            server: behind its guard.
            model: the arm.
            requests: is given what visitors ask for.
            bags: that can be opened, by the names that the page shows.
            read_only: visitors look, and change only what they see.
            dark: dark background.
        """
        self._server = server
        self._requests = requests
        self._read_only = read_only
        self._dragging = False
        self._dropped_at = -math.inf
        self._said: tuple[str, bool, float] = ("", False, -math.inf)
        self.words: dict[str, str] = {}
        self._worded_at = -math.inf
        self._pushing = False
        self._set_theme(dark)
        scene = server.scene
        # An environment map would be loaded from another machine.
        scene.configure_environment_map(hdri=None)
        scene.add_light_ambient("/lights/ambient", intensity=1.4)
        scene.add_grid("/floor", 3.0, 3.0, cell_size=0.25, section_size=1.0, cell_thickness=0.6, fade_distance=6.0)
        # Shadows are half of the drawing, on a tablet as well.
        scene.configure_default_lights(cast_shadow=False)
        server.initial_camera.position, server.initial_camera.look_at = CAMERA, LOOK_AT
        server.initial_camera.fov = FIELD_OF_VIEW
        push = None if read_only else self._on_push
        self._chain = model.arm.chain
        self._arm = ArmView(server, model, "/arm", push=push, longest_push=LONGEST_PUSH)
        self._ghost = ArmView(server, model, "/ghost", ghost=True)
        self._trail = Way(server, "/trail", BLUE)
        self._future = Way(server, "/future", VIOLET)
        self._goal = scene.add_icosphere("/goal", radius=0.02, color=GREEN, opacity=0.75, visible=False)
        self._refused = scene.add_icosphere("/refused", radius=0.02, color=RED, opacity=0.75, visible=False)
        self._why = scene.add_label("/refused/why", "", position=(0.0, 0.0, 0.05), anchor="bottom-center")
        self._contact = Arrow(server, "/contact", ORANGE)
        self._handle = None if read_only else self._add_handle(model.arm.goal_dimensions)
        self._sliders: dict[str, viser.GuiSliderHandle[float]] = {}
        server.gui.main_panel.dock_right()
        self._add_widgets(bags, dark)

    def _set_theme(self, dark: bool) -> None:
        self._server.gui.configure_theme(
            dark_mode=dark, show_logo=False, show_share_button=False, control_width="medium", brand_color=(25, 113, 194)
        )

    def _add_handle(self, dimensions: int) -> viser.TransformControlsHandle:
        """What the goal is dragged with, along so many axes."""
        handle = self._server.scene.add_transform_controls(
            "/goal_handle",
            scale=HANDLE_SIZE,
            disable_rotations=True,
            depth_test=False,
            visible=False,
            active_axes=(True, True, dimensions > 2),
        )

        @handle.on_update
        async def _(event: viser.TransformControlsEvent) -> None:
            self._dragging = event.phase != "end"
            self._goal.position = handle.position
            if event.phase == "end":
                self._dropped_at = time.monotonic()
                self._requests.put(Request("goal", np.array(handle.position)))

        return handle

    def _on_push(self, link: str, force: FloatArray) -> None:
        self._requests.put(Request("push", (link, force)))

    def _add_widgets(self, bags: Sequence[str], dark: bool) -> None:
        gui = self._server.gui
        self._status = gui.add_html("")
        self._answer = gui.add_html("")
        tabs = gui.add_tab_group()
        with tabs.add_tab("Control"):
            self._add_controls(dark)
        with tabs.add_tab("Curves"):
            self._curves = {name: self._add_curve(name, has_time=name == CURVES[-1]) for name in CURVES}
        with tabs.add_tab("Spikes"):
            self._raster = gui.add_image(np.zeros((240, 250, 3), dtype=np.uint8), format="jpeg", jpeg_quality=60)
            self._layers = gui.add_html("")
        with tabs.add_tab("Health"):
            self._health = gui.add_html("")
        with tabs.add_tab("Bag"):
            self._add_player(bags)

    def _add_controls(self, dark: bool) -> None:
        """Buttons and sliders, without those that change something where visitors only look."""
        gui = self._server.gui
        if self._read_only:
            gui.add_html(_text("You are looking on; this page changes nothing."))
        else:
            gui.add_html(_text("Drag the handle at the green goal. To push, tick this and drag any link of the arm:"))
            pushes = gui.add_checkbox("Push", False)

            @pushes.on_update
            async def _(event: Any) -> None:
                self._let_push(pushes.value)

            self._add_button_row("Simulation", ("pause", "go on", "step", "reset"))
            self._add_button_row("Controller", ("clear goal", "rollback"))
            self._add_button_row("Trainer", ("on", "off"))
            self._sliders = {name: self._add_slider(name) for name in SLIDERS}
        theme = gui.add_checkbox("Dark", dark)

        @theme.on_update
        async def _(event: Any) -> None:
            self._set_theme(theme.value)

    def _add_button_row(self, label: str, options: tuple[str, ...]) -> None:
        group = self._server.gui.add_button_group(label, options)
        names = {
            "go on": ("pause", False),
            "pause": ("pause", True),
            "on": ("trainer", True),
            "off": ("trainer", False),
        }

        @group.on_click
        async def _(event: Any) -> None:
            name, value = names.get(group.value, (group.value, None))
            self._requests.put(Request("call", (name, value)))

    def _let_push(self, pushing: bool) -> None:
        """What dragging does: push the arm, without a handle in the way, or move the goal."""
        self._pushing = pushing
        self._arm.let_push(pushing)

    def _add_slider(self, name: str) -> "viser.GuiSliderHandle[float]":
        """Greyed out until its present value is known."""
        label, low, high, step = SLIDERS[name]
        slider = self._server.gui.add_slider(label, low, high, step, low, disabled=True)

        @slider.on_update
        async def _(event: Any) -> None:
            # Without a client it was us who moved it.
            if event.client is not None:
                self._requests.put(Request("parameter", (name, float(slider.value))))

        return slider

    def _add_curve(self, name: str, has_time: bool) -> viser.GuiUplotHandle:
        grey: dict[str, Any] = {
            "stroke": "#868e96",
            "grid": {"stroke": "#86868644", "width": 1},
            "ticks": {"stroke": "#86868644"},
        }
        unit, _, least = UNITS[name]
        height = {"min": {"hard": 0, "soft": 0, "mode": 1}, "max": {"soft": least, "mode": 1, "pad": 0.1}}
        return self._server.gui.add_uplot(
            (np.zeros(2), np.zeros(2)),
            ({"label": "s"}, {"label": name, "stroke": "#1971c2", "width": 2}),
            title=f"{name}, {unit}",
            scales={"x": {"time": False}, "y": {"range": height}},
            axes=({**grey, "show": has_time, "size": TIME_HEIGHT}, {**grey, "size": 60, "space": 14}),  # type: ignore[typeddict-item]
            legend={"show": False},
            height=CURVE_HEIGHT + TIME_HEIGHT * has_time,
            padding=(10, 10, 6, 0),
            visible=name != "disturbance",
        )

    def _add_player(self, bags: Sequence[str]) -> None:
        gui = self._server.gui
        source = gui.add_dropdown("Show", (LIVE, *bags), initial_value=LIVE)
        self._play = gui.add_button("Play or pause")
        self._time = gui.add_slider("Time, s", 0.0, 1.0, 0.01, 0.0)
        speed = gui.add_dropdown("Speed", SPEEDS, initial_value="1")
        if not bags:
            gui.add_html(_text("Start with --bags FOLDER to choose recordings here."))

        @source.on_update
        async def _(event: Any) -> None:
            self._requests.put(Request("source", str(source.value)))

        @self._play.on_click
        async def _(event: Any) -> None:
            self._requests.put(Request("play"))

        @self._time.on_update
        async def _(event: Any) -> None:
            # Without a client it was us who moved it.
            if event.client is not None:
                self._requests.put(Request("seek", float(self._time.value)))

        @speed.on_update
        async def _(event: Any) -> None:
            self._requests.put(Request("speed", float(speed.value)))

    def say(self, sentence: str, is_bad: bool) -> None:
        """Show the answer to a request for a while."""
        self._said = sentence, is_bad, time.monotonic()

    def set_player(self, duration: float) -> None:
        """Another bag is open, so long, s; zero for the live graph."""
        self._time.max = max(round(duration, 2), 0.01)

    def show_time(self, moment: float) -> None:
        """Where in the bag we are, s."""
        self._time.value = min(round(moment, 2), float(self._time.max))  # type: ignore[misc]

    def show(self, moment: Moment, note: str = "") -> None:
        """The scene and the words.

        Args:
            moment: what there is to see.
            note: what the words begin with, such as which bag it is of.
        """
        self._arm.show(moment.joint_position)
        self._trail.show(moment.trail)
        self._future.show(moment.future)
        future = moment.future_position
        is_ahead = (
            future is not None
            and len(moment.future) > 1
            and float(np.linalg.norm(moment.future[-1] - moment.future[0])) > GHOST_DISTANCE
        )
        self._ghost.show(future if is_ahead and future is not None else moment.joint_position, visible=is_ahead)
        self._show_goal(moment.goal)
        self._show_refusal(moment.refused, moment.refusal)
        self._contact.show(self._chain.position(moment.joint_position), moment.contact)
        now = time.monotonic()
        if now - self._worded_at > WORDS_PERIOD:
            self._worded_at = now
            self._show_words(moment, note)

    def _show_words(self, moment: Moment, note: str) -> None:
        self._write("status", self._status, _status_text(moment, note))
        sentence, is_bad, said_at = self._said
        if moment.refusal:
            sentence, is_bad = f"Refused: {moment.refusal}", True
        elif time.monotonic() - said_at > SAID:
            sentence = ""
        shade = "#e03131" if is_bad else "#2f9e44"
        self._write("answer", self._answer, _text(sentence, shade) if sentence else "")
        self._write("health", self._health, _health_text(moment.health))

    def _show_goal(self, goal: FloatArray | None) -> None:
        """The accepted goal; the handle returns to it from where it was refused."""
        is_free = self._dragging or time.monotonic() - self._dropped_at < SETTLING
        if self._handle is not None and self._handle.visible != (goal is not None and not self._pushing):
            self._handle.visible = not self._handle.visible
        if self._goal.visible != (goal is not None):
            self._goal.visible = goal is not None
        if goal is None or is_free:
            return
        for node in (self._goal, self._handle):
            if node is None:
                continue
            if np.abs(np.asarray(node.position) - goal).max() > 1e-6:
                node.position = goal

    def _show_refusal(self, place: FloatArray | None, sentence: str) -> None:
        """A red goal where it was refused, and why."""
        is_shown = place is not None and bool(np.isfinite(place).all())
        if self._refused.visible != is_shown:
            self._refused.visible = self._why.visible = is_shown
        if place is not None and is_shown:
            self._refused.position = place
            self._write("why", self._why, textwrap.fill(sentence, 44))

    def set_slider(self, name: str, value: float | None) -> None:
        """What one of SLIDERS is at present; None: it cannot be set."""
        slider = self._sliders[name]
        slider.disabled = value is None
        if value is not None:
            slider.value = min(max(value, float(slider.min)), float(slider.max))  # type: ignore[misc]

    def slider(self, name: str) -> float | None:
        """Where one of SLIDERS is; None: it is greyed out."""
        slider = self._sliders[name]
        return None if slider.disabled else float(slider.value)

    def goal_came(self) -> None:
        """An answer to the last goal is here: the handle need not wait for it any longer."""
        self._dropped_at = -math.inf

    def show_curves(self, curves: Curves) -> None:
        """The curves."""
        for name, handle in self._curves.items():
            values = curves.values[name]
            known = np.isfinite(values)
            if known.sum() < 2:
                continue
            if not handle.visible:
                handle.visible = True
            handle.data = curves.time[known], UNITS[name][1] * values[known]

    def show_spikes(self, image: NDArray[np.uint8], layers: dict[str, tuple[int, int]]) -> None:
        """The raster, as of `evaluation.raster`; before the first spikes it has no rows."""
        if not image.size:
            return
        self._raster.image = np.repeat(image[:, :, None], 3, axis=2)
        names = "<br>".join(html.escape(name.replace("/", ", ")) for name in layers)
        self._write(
            "layers", self._layers, _text("") if not names else f"<div style='{_SMALL}'>From the top:<br>{names}</div>"
        )

    def _write(self, key: str, handle: viser.GuiHtmlHandle | viser.LabelHandle, text: str) -> None:
        """Send a text if it is another one."""
        if self.words.get(key) != text:
            self.words[key] = text
            if isinstance(handle, viser.LabelHandle):
                handle.text = text
            else:
                handle.content = text


_SMALL = "font-size:0.85em;line-height:1.35;padding:0.2em 0.7em"


def _text(sentence: str, shade: str = "") -> str:
    colour = f"color:{shade};" if shade else ""
    return f"<div style='{colour}{_SMALL}'>{html.escape(sentence)}</div>"


def _status_text(moment: Moment, note: str) -> str:
    """State and distance, what else acts on the arm, the networks, and the reason of a fault."""
    state = moment.state or "waiting for the controller"
    first = f"<b style='color:{SHADES.get(moment.state, '#888888')};font-size:1.25em'>{html.escape(state)}</b>"
    if moment.goal is not None and len(moment.trail):
        distance = float(np.linalg.norm(moment.trail[-1] - moment.goal))
        first += f" · {1000 * distance:.1f} mm to the goal"
    acts = []
    if moment.load is not None:
        mass, confidence = moment.load
        acts.append(f"load {mass:.2f} kg" if confidence > SURE else "load unknown")
    if moment.disturbance is not None:
        acts.append(f"disturbance {moment.disturbance:.1f} N·m")
    if moment.contact is not None:
        acts.append(f"<b style='color:#e8590c'>contact {np.linalg.norm(moment.contact):.0f} N</b>")
    if moment.version:
        acts.append(f"networks {html.escape(moment.version[:8])}")
    lines = [first, f"<span style='font-size:0.85em'>{' · '.join(acts)}</span>"]
    if note:
        lines.insert(0, html.escape(note))
    if moment.reason:
        lines.append(f"<span style='color:#e03131'>{html.escape(moment.reason)}</span>")
    # Room for two lines of what acts, so that nothing below jumps.
    return f"<div style='padding:0.4em 0.7em;line-height:1.4;min-height:4.9em'>{'<br>'.join(lines)}</div>"


def _health_text(health: Sequence[Health]) -> str:
    """Diagnostics in words, the worst first."""
    lines = []
    for entry in sorted(health, key=lambda entry: (-entry.level, entry.name)):
        shade = ("#2f9e44", "#e8590c", "#e03131", "#888888")[min(entry.level, 3)]
        level = LEVELS[min(entry.level, 3)]
        lines.append(f"<b style='color:{shade}'>{level}</b> {html.escape(entry.name)}<br>{html.escape(entry.message)}")
    return f"<div style='{_SMALL}'>{'<br><br>'.join(lines) or 'nothing was heard'}</div>"
