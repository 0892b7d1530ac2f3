"""Compiled kernels that run all ticks of one control step of a spiking layer in one pass over memory.

The mathematics is that of `neurons.adaptive_lif_step`; the plain PyTorch loop there is the reference that these
kernels are tested against. Arrays are float32 and C-contiguous: `[batch, ticks, neurons]` over a step,
`[batch, 4, neurons]` for a state, `[neurons]` for a parameter. A drive of one tick is held constant over the step.
Where the threshold does not move, a state may leave out its last two, adaptation and threshold base, and its gradient
the last.

Spikes are sparse, so each step stores index lists of the neurons that fired (`Fired`). The weights of these neurons are
added up row by row (`add_fired`), and so are their gradients (`add_to_fired`).

Each row of the batch is processed in blocks of neurons, and a block runs all its ticks while it is in the core's own
caches. Everything that a block carries from tick to tick is in one scratch array, at offsets known at compile time, so
that the compiler can prove that nothing overlaps and vectorises every loop over neurons.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from spiking_controller.compilation import compiled

_OPTIONS: Any = {"fastmath": True, "error_model": "numpy", "nogil": True}
_INLINE: Any = {"fastmath": True, "error_model": "numpy", "inline": "always"}
# A function that says nothing of `fastmath` takes over its caller's.
_EXACT: Any = {"fastmath": False, "error_model": "numpy", "nogil": True}

# Constants of the surrogates, see `snn/surrogate.py`. They are here because the compiled code on disk is renewed only
# when this file changes.
GAUSSIAN_SHARPNESS: Final = 16.0
SIDE_LOBE_HEIGHT: Final = 0.15
SIDE_LOBE_WIDTH: Final = 6.0
SUPERSPIKE_SLOPE: Final = 25.0
SIGMOID_SLOPE: Final = 25.0
MULTI_GAUSSIAN_PEAK: Final = (
    1.0 + SIDE_LOBE_HEIGHT - 2.0 * (SIDE_LOBE_HEIGHT / SIDE_LOBE_WIDTH) * math.exp(-0.5 / SIDE_LOBE_WIDTH**2)
)
"""Height of the sum of the three Gaussians of `multi_gaussian` at the threshold, before it is scaled to 1."""
SURROGATE_CODES: Final = {"gaussian": 0, "multi_gaussian": 1, "superspike": 2, "sigmoid": 3}

# Exponents are of base 2.
_BELL_EXPONENT: Final = np.float32(-0.5 * GAUSSIAN_SHARPNESS**2 / math.log(2.0))
_SHARPNESS: Final = np.float32(GAUSSIAN_SHARPNESS)
_CENTRE_HEIGHT: Final = np.float32((1.0 + SIDE_LOBE_HEIGHT) / MULTI_GAUSSIAN_PEAK)
# Both lobes together, exp(-(x+1)²/2w²) + exp(-(x-1)²/2w²) = 2·exp(-1/2w²)·exp(-x²/2w²)·cosh(x/w²), with the series of
# cosh up to the sixth power: exact to 2e-9, since x is small or exp(-x²/2w²) is.
_LOBES_HEIGHT: Final = np.float32(
    2.0 * math.exp(-0.5 / SIDE_LOBE_WIDTH**2) * SIDE_LOBE_HEIGHT / SIDE_LOBE_WIDTH / MULTI_GAUSSIAN_PEAK
)
_LOBE_EXPONENT: Final = np.float32(-0.5 / SIDE_LOBE_WIDTH**2 / math.log(2.0))
_COSH_2, _COSH_4, _COSH_6 = (np.float32(SIDE_LOBE_WIDTH ** (-2 * power) / math.factorial(power)) for power in (2, 4, 6))
_SUPERSPIKE_SLOPE: Final = np.float32(SUPERSPIKE_SLOPE)
_SIGMOID_SLOPE: Final = np.float32(SIGMOID_SLOPE)
_SIGMOID_EXPONENT: Final = np.float32(-SIGMOID_SLOPE / math.log(2.0))
MOST_TICKS: Final = 31
"""Most ticks of a control step: a neuron's spikes within a step are the bits of an int32, its pattern."""
_BLOCK: Final = 256
"""Neurons that go through the ticks together."""
# Offsets in the scratch array of a block: its state, and the mean of its spikes.
_SYNAPTIC, _MEMBRANE, _ADAPTATION, _BASE, _MEAN = (field * _BLOCK for field in range(5))
_STATE: Final = 5 * _BLOCK
# A record of a tick in the backward pass begins with the state before the tick, as above. The surrogate derivative
# follows, and is later overwritten by the gradient of the drive. The gradients of the state overwrite what is no longer
# needed by then; the previous tick still needs the synaptic current. Where spikes clear the membrane, the record ends
# with the share of the membrane's gradient that passes through the reset, zero or one.
_SLOPE: Final = 4 * _BLOCK
_GRAD_SYNAPTIC, _GRAD_MEMBRANE, _GRAD_ADAPTATION = _BASE, _MEMBRANE, _ADAPTATION
_PASSES: Final = 5 * _BLOCK
_RECORD: Final = 6 * _BLOCK
# Offsets in the parameters of a block, or in their gradients: the decay factors, and for gradients the bias.
_DECAY_SYNAPTIC, _DECAY_MEMBRANE, _DECAY_ADAPTATION, _BIAS = (field * _BLOCK for field in range(4))
_ONE: Final = np.float32(1.0)
_ZERO: Final = np.float32(0.0)
_LOWEST: Final = np.float32(-60.0)
_C1, _C2, _C3, _C4, _C5 = (np.float32(math.log(2.0) ** power / math.factorial(power)) for power in range(1, 6))
_FRACTION_BITS: Final = np.int32(23)
_NO_BIT: Final = np.int32(0)


class Rounding(NamedTuple):
    """Fixed-point numbers that hold a state, see `fixed_point.FixedPoint`.

    Attributes:
        quantum: 0 if the state is not rounded.
        lowest, highest: in quanta.
    """

    quantum: float
    lowest: float
    highest: float


class Neurons(NamedTuple):
    """Parameters of a layer's neurons.

    Attributes:
        decay: factors per tick of synaptic current, membrane and adaptation, [3, neurons].
        rest, decrement, adaptation_strength: see `neurons.Threshold`.
        floor: likewise, but finite.
        clears: see `neurons.Threshold`.
        rounding: of their state.
    """

    decay: np.ndarray
    rest: float
    decrement: float
    adaptation_strength: float
    floor: float
    clears: bool
    rounding: Rounding


class Connection(NamedTuple):
    """Weights behind spikes, s·gather·spread, or s·gather if `spread` has no rows; neither has rows if there are none.

    Attributes:
        gather: [before, rank], or the full matrix [before, neurons].
        spread: [rank, neurons].
    """

    gather: np.ndarray
    spread: np.ndarray


class Fired(NamedTuple):
    """Index lists of the neurons that fired in a step, int32.

    Attributes:
        neurons: row by row and tick by tick without gaps, [batch·ticks·neurons].
        ends: where each list ends, [batch, ticks].
    """

    neurons: np.ndarray
    ends: np.ndarray


class StepResult(NamedTuple):
    """Arrays that receive what the ticks of a step leave.

    Attributes:
        fired: the neurons that fired.
        state: after the step, [batch, 4, neurons].
        mean_spikes: per tick, [batch, neurons].
        currents: of the readout, [batch, ticks, outputs]; added to.
    """

    fired: Fired
    state: np.ndarray
    mean_spikes: np.ndarray
    currents: np.ndarray


class StepGradient(NamedTuple):
    """Gradients of what a step left.

    Attributes:
        from_above: of the spikes, from the layer above, [batch, ticks, neurons]; without rows if there is none.
        currents: of the readout's currents, [batch, ticks, outputs].
        mean_spikes: [batch, neurons].
        state: of the first three of the state after the step, [batch, 3, neurons]; overwritten by that of the state
            before it.
    """

    from_above: np.ndarray
    currents: np.ndarray
    mean_spikes: np.ndarray
    state: np.ndarray


class LayerGradient(NamedTuple):
    """Gradients of a layer's parameters, which are added to.

    Attributes:
        neurons: of the decay factors and the bias, [4, neurons].
        readout: of the weights to the readout, [neurons, outputs].
    """

    neurons: np.ndarray
    readout: np.ndarray


class TickWiseRecord(NamedTuple):
    """Arrays that receive what the backward pass through a tick-wise recurrent step needs.

    Attributes:
        drive: the whole drive, [batch, ticks, neurons]; may be the drive that was fed.
        latent: s·gather, [batch, ticks, rank].
    """

    drive: np.ndarray
    latent: np.ndarray


class Integrators(NamedTuple):
    """State of the readout, or its gradient: synaptic current and membrane, [batch, outputs] each."""

    synaptic: np.ndarray
    membrane: np.ndarray


class Readout(NamedTuple):
    """Coefficients of the readout over the ticks of a step in closed form, or their gradients.

    See `readout.readout_response`. `synaptic_gain` and `membrane_gain` are [ticks, outputs], the rest [outputs].
    """

    synaptic_keep: np.ndarray
    synaptic_gain: np.ndarray
    membrane_keep: np.ndarray
    membrane_from_synaptic: np.ndarray
    membrane_gain: np.ndarray
    output_gain: np.ndarray


class LayerWeights(NamedTuple):
    """Parameters of one layer for `layer_step`.

    Attributes:
        forward: from the layer before; without rows for the first layer, whose drive is constant.
        recurrent: from the layer's own mean spikes.
        neurons: their parameters.
        readout: weights to the readout, [neurons, outputs].
    """

    forward: Connection
    recurrent: Connection
    neurons: Neurons
    readout: np.ndarray


@njit(**_INLINE)
def _two_to_the(exponent):  # type: ignore[no-untyped-def]
    """2^x for x <= 0: plain arithmetic, which vectorises.

    With x = n + f, n whole and |f| <= 1/2, 2^f is the exponential series, and n is added to the float's exponent bits.
    It is exact to about 3e-6 of the value, and 1e-18 wherever that would be less: products of gradients with much
    smaller values would be subnormal numbers, which processors are slow with.
    """
    x = max(exponent, _LOWEST)
    whole = np.rint(x)
    f = x - whole
    series = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
    return np.int32(np.float32(series).view(np.int32) + (np.int32(whole) << _FRACTION_BITS)).view(np.float32)


@njit(**_INLINE)
def _apply_surrogate(above, code):  # type: ignore[no-untyped-def]
    """Replace membrane - threshold by the surrogate derivative there, see `surrogate.py`; [neurons]."""
    if code == 0:
        for i in range(above.shape[0]):
            above[i] = _two_to_the(above[i] * above[i] * _BELL_EXPONENT)
    elif code == 1:
        for i in range(above.shape[0]):
            x = above[i] * _SHARPNESS
            squared = x * x
            centre = _two_to_the(above[i] * above[i] * _BELL_EXPONENT)
            cosh = _ONE + squared * (_COSH_2 + squared * (_COSH_4 + squared * _COSH_6))
            above[i] = _CENTRE_HEIGHT * centre - _LOBES_HEIGHT * _two_to_the(squared * _LOBE_EXPONENT) * cosh
    elif code == 2:
        for i in range(above.shape[0]):
            x = _ONE + _SUPERSPIKE_SLOPE * abs(above[i])
            above[i] = _ONE / (x * x)
    else:
        for i in range(above.shape[0]):
            e = _two_to_the(_SIGMOID_EXPONENT * abs(above[i]))
            above[i] = _SIGMOID_SLOPE * e / ((_ONE + e) * (_ONE + e))


@njit(**_INLINE)
def _read(scratch, offset, source):  # type: ignore[no-untyped-def]
    for i in range(source.shape[0]):
        scratch[offset + i] = source[i]


@njit(**_INLINE)
def _write(scratch, offset, into):  # type: ignore[no-untyped-def]
    for i in range(into.shape[0]):
        into[i] = scratch[offset + i]


@njit(**_INLINE)
def _by_block(parameters):  # type: ignore[no-untyped-def]
    """Parameters of neurons, or their gradients, [fields, neurons], block by block, [blocks, fields·_BLOCK]."""
    fields, neurons = parameters.shape
    blocks = np.zeros(((neurons + _BLOCK - 1) // _BLOCK, fields * _BLOCK), np.float32)
    for number in range(blocks.shape[0]):
        for field in range(fields):
            _read(blocks[number], field * _BLOCK, parameters[field, number * _BLOCK : (number + 1) * _BLOCK])
    return blocks


@njit(**_INLINE)
def _to_neurons(blocks, parameters):  # type: ignore[no-untyped-def]
    """The inverse of `_by_block`."""
    for number in range(blocks.shape[0]):
        for field in range(parameters.shape[0]):
            _write(blocks[number], field * _BLOCK, parameters[field, number * _BLOCK : (number + 1) * _BLOCK])


@njit(**_INLINE)
def _read_state(scratch, state, row, block):  # type: ignore[no-untyped-def]
    """A block's state, from [batch, 4, neurons], or without the last two, [batch, 2, neurons]."""
    _read(scratch, _SYNAPTIC, state[row, 0, block])
    _read(scratch, _MEMBRANE, state[row, 1, block])
    if state.shape[1] > 2:
        _read(scratch, _ADAPTATION, state[row, 2, block])
        _read(scratch, _BASE, state[row, 3, block])


@njit(**_INLINE)
def _write_state(scratch, state, row, block):  # type: ignore[no-untyped-def]
    """The inverse of `_read_state`."""
    _write(scratch, _SYNAPTIC, state[row, 0, block])
    _write(scratch, _MEMBRANE, state[row, 1, block])
    if state.shape[1] > 2:
        _write(scratch, _ADAPTATION, state[row, 2, block])
        _write(scratch, _BASE, state[row, 3, block])


@njit(**_INLINE)
def _read_grad_state(record, grad_state, row, block):  # type: ignore[no-untyped-def]
    """A block's gradients of the state, from [batch, 3, neurons], or without the last, [batch, 2, neurons]."""
    _read(record, _GRAD_SYNAPTIC, grad_state[row, 0, block])
    _read(record, _GRAD_MEMBRANE, grad_state[row, 1, block])
    if grad_state.shape[1] > 2:
        _read(record, _GRAD_ADAPTATION, grad_state[row, 2, block])


@njit(**_INLINE)
def _write_grad_state(record, grad_state, row, block):  # type: ignore[no-untyped-def]
    """The inverse of `_read_grad_state`."""
    _write(record, _GRAD_SYNAPTIC, grad_state[row, 0, block])
    _write(record, _GRAD_MEMBRANE, grad_state[row, 1, block])
    if grad_state.shape[1] > 2:
        _write(record, _GRAD_ADAPTATION, grad_state[row, 2, block])


@njit(**_INLINE)
def _levels(neurons):  # type: ignore[no-untyped-def]
    """Rest, decrement, adaptation strength and floor as float32."""
    return (
        np.float32(neurons.rest),
        np.float32(neurons.decrement),
        np.float32(neurons.adaptation_strength),
        np.float32(neurons.floor),
    )


@njit(**_INLINE)
def _moves(levels):  # type: ignore[no-untyped-def]
    """Whether the threshold moves: `neurons.Threshold.moves`. If not, a tick has half as much to read and write."""
    _, decrement, strength, _ = levels
    return decrement != _ZERO or strength != _ZERO


@njit(**_INLINE)
def _tick(state, drive, decays, levels, clears, share, bit, pattern):  # type: ignore[no-untyped-def]
    """One tick of a block: changes its state, and sets that bit of `pattern` where a neuron fires."""
    _charge_and_fire(state, drive, decays, levels, share, bit, pattern)
    if clears:
        for i in range(drive.shape[0]):
            state[_MEMBRANE + i] = _ZERO if pattern[i] & bit else state[_MEMBRANE + i]


@njit(**_INLINE)
def _charge_and_fire(state, drive, decays, levels, share, bit, pattern):  # type: ignore[no-untyped-def]
    """`_tick` where a spike subtracts the threshold."""
    rest, decrement, strength, floor = levels
    if not _moves(levels):
        for i in range(drive.shape[0]):
            keep = decays[_DECAY_MEMBRANE + i]
            current = decays[_DECAY_SYNAPTIC + i] * state[_SYNAPTIC + i] + drive[i]
            charged = keep * state[_MEMBRANE + i] + (_ONE - keep) * current
            fires = charged > rest
            state[_SYNAPTIC + i] = current
            state[_MEMBRANE + i] = charged - rest if fires else charged
            state[_MEAN + i] += share if fires else _ZERO
            pattern[i] |= bit if fires else _NO_BIT
        return
    for i in range(drive.shape[0]):
        keep = decays[_DECAY_MEMBRANE + i]
        current = decays[_DECAY_SYNAPTIC + i] * state[_SYNAPTIC + i] + drive[i]
        charged = keep * state[_MEMBRANE + i] + (_ONE - keep) * current
        base = max(state[_BASE + i] - decrement, floor)
        threshold = base + strength * state[_ADAPTATION + i]
        spike = _ONE if charged > threshold else _ZERO
        state[_SYNAPTIC + i] = current
        state[_MEMBRANE + i] = charged - spike * threshold
        state[_ADAPTATION + i] = decays[_DECAY_ADAPTATION + i] * state[_ADAPTATION + i] + spike
        state[_BASE + i] = rest if charged > threshold else base
        state[_MEAN + i] += share * spike
        pattern[i] |= bit if charged > threshold else _NO_BIT


@njit(**_EXACT)
def _grid(rounding):  # type: ignore[no-untyped-def]
    """Quantum and bounds of a `Rounding` as float32."""
    return np.float32(rounding.quantum), np.float32(rounding.lowest), np.float32(rounding.highest)


@njit(**_EXACT)
def _nearest(value, grid):  # type: ignore[no-untyped-def]
    """The nearest fixed-point number of a `Rounding` in float32."""
    quantum, lowest, highest = grid
    return min(max(np.rint(value * (_ONE / quantum)), lowest), highest) * quantum


@njit(**_EXACT)
def _rounded_ticks(drive, state, neurons, ticks, after, mean_spikes, pattern):  # type: ignore[no-untyped-def]
    """All ticks of a row whose state is rounded whenever it is written.

    Equal bit for bit to `neurons.adaptive_lif_step`: plain arithmetic in the same order, compiled without `fastmath`.

    Args:
        drive: [ticks, neurons], or [1, neurons] for one that is held constant.
        state, after: before and after the step, [4, neurons].
        neurons: their parameters.
        ticks: how many.
        mean_spikes: receives the mean spikes per tick, [neurons].
        pattern: receives the spikes, a bit for each tick, [neurons].
    """
    levels = _levels(neurons)
    rest, decrement, strength, floor = levels
    moves = _moves(levels)
    grid = _grid(neurons.rounding)
    constant = drive.shape[0] == 1
    for i in range(drive.shape[1]):
        decay_synaptic, keep, decay_adaptation = neurons.decay[0, i], neurons.decay[1, i], neurons.decay[2, i]
        current, membrane, adaptation, base = state[0, i], state[1, i], state[2, i], state[3, i]
        spikes, count = _NO_BIT, _ZERO
        for tick in range(ticks):
            current = _nearest(decay_synaptic * current + drive[0 if constant else tick, i], grid)
            charged = _nearest(keep * membrane + (_ONE - keep) * current, grid)
            threshold = rest
            if moves:
                base = _nearest(max(base - decrement, floor), grid)
                threshold = base + strength * adaptation
            fires = charged > threshold
            spike = _ONE if fires else _ZERO
            membrane = _nearest(charged - (charged if neurons.clears else threshold) * spike, grid)
            if moves:
                adaptation = _nearest(decay_adaptation * adaptation + spike, grid)
                base = rest if fires else base
            spikes |= np.int32(1 << tick) if fires else _NO_BIT
            count += spike
        after[0, i], after[1, i], after[2, i], after[3, i] = current, membrane, adaptation, base
        mean_spikes[i] = count / np.float32(ticks)
        pattern[i] = spikes


@njit(**_INLINE)
def _find(values, index):  # type: ignore[no-untyped-def]
    """Write the places of values other than zero into `index`, which is longer; returns how many there are."""
    count = 0
    for j in range(values.shape[0]):
        index[count] = j
        count += values[j] != 0
    return count


@njit(**_INLINE)
def _list_fired(pattern, active, bits, fired, end, ends):  # type: ignore[no-untyped-def]
    """Append a row's lists, from the patterns of its neurons, to `fired`, whose end is returned, and fill its `ends`.

    `active` and `bits` are scratch, [neurons + 1].
    """
    count = 0
    for j in range(pattern.shape[0]):
        active[count] = j
        bits[count] = pattern[j]
        count += pattern[j] != _NO_BIT
    for tick in range(ends.shape[0]):
        for k in range(count):
            fired[end] = active[k]
            end += (bits[k] >> tick) & 1
        ends[tick] = end
    return end


@njit(**_INLINE)
def _fired_in(fired, row, tick):  # type: ignore[no-untyped-def]
    """The list of one row and tick."""
    place = row * fired.ends.shape[1] + tick
    flat = fired.ends.reshape(-1)
    return fired.neurons[(flat[place - 1] if place > 0 else 0) : flat[place]]


@njit(**_INLINE)
def _add_rows(index, rows, into):  # type: ignore[no-untyped-def]
    """Add the rows of these numbers to `into`, four in one pass; [rows, n], [n]."""
    count = index.shape[0]
    whole = count - count % 4
    for k in range(0, whole, 4):
        a, b, c, d = index[k], index[k + 1], index[k + 2], index[k + 3]
        for i in range(into.shape[0]):
            into[i] += (rows[a, i] + rows[b, i]) + (rows[c, i] + rows[d, i])
    for k in range(whole, count):
        a = index[k]
        for i in range(into.shape[0]):
            into[i] += rows[a, i]


@njit(**_INLINE)
def _add_to_rows(index, row, rows):  # type: ignore[no-untyped-def]
    """Add `row` to the rows of these numbers; [n], [rows, n]."""
    for k in range(index.shape[0]):
        a = index[k]
        for i in range(row.shape[0]):
            rows[a, i] += row[i]


@njit(**_INLINE)
def _add_product(scale, rows, into):  # type: ignore[no-untyped-def]
    """into += scale @ rows, six rows in one pass, then four, two, one; [k], [k, n], [n]."""
    sixes = rows.shape[0] - rows.shape[0] % 6
    for r in range(0, sixes, 6):
        a, b, c, d, e, f = scale[r], scale[r + 1], scale[r + 2], scale[r + 3], scale[r + 4], scale[r + 5]
        for i in range(into.shape[0]):
            first = a * rows[r, i] + b * rows[r + 1, i] + c * rows[r + 2, i]
            into[i] += first + (d * rows[r + 3, i] + e * rows[r + 4, i] + f * rows[r + 5, i])
    whole = rows.shape[0] - (rows.shape[0] - sixes) % 4
    for r in range(sixes, whole, 4):
        a, b, c, d = scale[r], scale[r + 1], scale[r + 2], scale[r + 3]
        for i in range(into.shape[0]):
            into[i] += (a * rows[r, i] + b * rows[r + 1, i]) + (c * rows[r + 2, i] + d * rows[r + 3, i])
    pairs = rows.shape[0] - rows.shape[0] % 2
    for r in range(whole, pairs, 2):
        a, b = scale[r], scale[r + 1]
        for i in range(into.shape[0]):
            into[i] += a * rows[r, i] + b * rows[r + 1, i]
    for r in range(pairs, rows.shape[0]):
        for i in range(into.shape[0]):
            into[i] += scale[r] * rows[r, i]


@compiled(**_OPTIONS)
def scan_forward(
    drive: np.ndarray, state: np.ndarray, neurons: Neurons, readout: np.ndarray, result: StepResult
) -> None:
    """Run every tick of a step.

    Args:
        drive: [batch, ticks, neurons], or [batch, 1, neurons] for one that is held constant over the step.
        state: synaptic current, membrane, adaptation and threshold base, [batch, 4, neurons].
        neurons: their parameters.
        readout: weights to the readout, [neurons, outputs].
        result: receives what the step leaves.
    """
    fired, currents = result.fired, result.currents
    batch, ticks, _ = currents.shape
    size = readout.shape[0]
    constant = drive.shape[1] == 1
    share = np.float32(1.0 / ticks)
    levels = _levels(neurons)
    decays = _by_block(neurons.decay)
    scratch = np.empty(_STATE, np.float32)
    patterns, active, bits = (
        np.empty(size, np.int32),
        np.empty(size + 1, np.int32),
        np.empty(size + 1, np.int32),
    )
    end = 0
    blocks = 0 if neurons.rounding.quantum > 0.0 else decays.shape[0]
    for row in range(batch):
        if neurons.rounding.quantum > 0.0:
            after = result.state[row]
            _rounded_ticks(drive[row], state[row], neurons, ticks, after, result.mean_spikes[row], patterns)
        for number in range(blocks):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            _read_state(scratch, state, row, block)
            scratch[_MEAN:] = _ZERO
            pattern = patterns[block]
            pattern[:] = _NO_BIT
            for tick in range(ticks):
                now = drive[row, 0 if constant else tick, block]
                _tick(scratch, now, decays[number], levels, neurons.clears, share, np.int32(1 << tick), pattern)
            _write_state(scratch, result.state, row, block)
            _write(scratch, _MEAN, result.mean_spikes[row, block])
        end = _list_fired(patterns, active, bits, fired.neurons, end, fired.ends[row])
        for tick in range(ticks):
            _add_rows(_fired_in(fired, row, tick), readout, currents[row, tick])


@njit(**_INLINE)
def _tick_again(records, drive, decays, levels, clears, surrogate):  # type: ignore[no-untyped-def]
    """`_tick` in the backward pass: from one record into the next; leaves the surrogate derivative in the first."""
    _charge_and_fire_again(records, drive, decays, levels)
    if clears:
        for i in range(drive.shape[0]):
            passes = _ZERO if records[_SLOPE + i] > _ZERO else _ONE
            records[_PASSES + i] = passes
            records[_RECORD + _MEMBRANE + i] *= passes
    _apply_surrogate(records[_SLOPE : _SLOPE + drive.shape[0]], surrogate)


@njit(**_INLINE)
def _charge_and_fire_again(records, drive, decays, levels):  # type: ignore[no-untyped-def]
    """`_tick_again` where a spike subtracts the threshold; leaves membrane - threshold in place of the derivative."""
    rest, decrement, strength, floor = levels
    if not _moves(levels):
        for i in range(drive.shape[0]):
            keep = decays[_DECAY_MEMBRANE + i]
            current = decays[_DECAY_SYNAPTIC + i] * records[_SYNAPTIC + i] + drive[i]
            charged = keep * records[_MEMBRANE + i] + (_ONE - keep) * current
            above = charged - rest
            records[_RECORD + _SYNAPTIC + i] = current
            records[_RECORD + _MEMBRANE + i] = above if above > _ZERO else charged
            records[_SLOPE + i] = above
        return
    for i in range(drive.shape[0]):
        keep = decays[_DECAY_MEMBRANE + i]
        current = decays[_DECAY_SYNAPTIC + i] * records[_SYNAPTIC + i] + drive[i]
        charged = keep * records[_MEMBRANE + i] + (_ONE - keep) * current
        base = max(records[_BASE + i] - decrement, floor)
        threshold = base + strength * records[_ADAPTATION + i]
        above = charged - threshold
        spike = _ONE if above > _ZERO else _ZERO
        records[_RECORD + _SYNAPTIC + i] = current
        records[_RECORD + _MEMBRANE + i] = charged - spike * threshold
        records[_RECORD + _ADAPTATION + i] = decays[_DECAY_ADAPTATION + i] * records[_ADAPTATION + i] + spike
        records[_RECORD + _BASE + i] = rest if above > _ZERO else base
        records[_SLOPE + i] = above


@njit(**_INLINE)
def _tick_back(records, grad_spikes, decays, levels, clears, learns, grad_block):  # type: ignore[no-untyped-def]
    """The way back through one tick of a block: from the gradients in its second record to those in its first."""
    if clears:
        for i in range(grad_spikes.shape[0]):
            records[_RECORD + _GRAD_MEMBRANE + i] *= records[_PASSES + i]
    # With literals each call compiles to a loop of its own, free of branches.
    if _moves(levels):
        if learns:
            _tick_back_loop(records, grad_spikes, decays, levels, True, True, grad_block)
        else:
            _tick_back_loop(records, grad_spikes, decays, levels, True, False, grad_block)
    elif learns:
        _tick_back_loop(records, grad_spikes, decays, levels, False, True, grad_block)
    else:
        _tick_back_loop(records, grad_spikes, decays, levels, False, False, grad_block)


@njit(**_INLINE)
def _tick_back_loop(records, grad_spikes, decays, levels, moves, learns, grad_block):  # type: ignore[no-untyped-def]
    """`_tick_back` for a threshold that moves or does not; `grad_block` is added to if the layer learns."""
    for i in range(grad_spikes.shape[0]):
        keep = decays[_DECAY_MEMBRANE + i]
        g_after = records[_RECORD + _GRAD_ADAPTATION + i] if moves else _ZERO
        g_above = records[_SLOPE + i] * (grad_spikes[i] + g_after)
        g_charged = records[_RECORD + _GRAD_MEMBRANE + i] + g_above
        g_current = records[_RECORD + _GRAD_SYNAPTIC + i] + (_ONE - keep) * g_charged
        if learns:
            if moves:
                grad_block[_DECAY_ADAPTATION + i] += g_after * records[_ADAPTATION + i]
            grad_block[_DECAY_MEMBRANE + i] += g_charged * (records[_MEMBRANE + i] - records[_RECORD + _SYNAPTIC + i])
            grad_block[_DECAY_SYNAPTIC + i] += g_current * records[_SYNAPTIC + i]
            grad_block[_BIAS + i] += g_current
        if moves:
            records[_GRAD_ADAPTATION + i] = decays[_DECAY_ADAPTATION + i] * g_after - levels[2] * g_above
        records[_GRAD_MEMBRANE + i] = g_charged * keep
        records[_GRAD_SYNAPTIC + i] = g_current * decays[_DECAY_SYNAPTIC + i]
        records[_SLOPE + i] = g_current


@njit(**_INLINE)
def _grad_spikes(grad, readout, share, row, tick, into):  # type: ignore[no-untyped-def]
    """The gradient of one tick's spikes, [neurons], from those of what the step left, `grad`."""
    from_above, mean_spikes = grad.from_above, grad.mean_spikes
    if from_above.shape[0] > 0:
        for i in range(into.shape[0]):
            into[i] = share * mean_spikes[row, i] + from_above[row, tick, i]
    else:
        for i in range(into.shape[0]):
            into[i] = share * mean_spikes[row, i]
    _add_product(grad.currents[row, tick], readout, into)


@compiled(**_OPTIONS)
def scan_backward(
    grad: StepGradient,
    readout: np.ndarray,
    drive: np.ndarray,
    state: np.ndarray,
    neurons: Neurons,
    fired: Fired,
    surrogate: int,
    learns: bool,
    grad_drive: np.ndarray,
    grad_layer: LayerGradient,
) -> None:
    """Back-propagate through every tick; the ticks of a row are run once more instead of being kept.

    Args:
        grad: of what the step left.
        readout: weights to the readout, [outputs, neurons].
        drive, state, neurons: see `scan_forward`.
        fired: the neurons that fired in the step.
        surrogate: its code.
        learns: whether gradients of parameters are needed.
        grad_drive: receives the gradient of the drive; a drive of one tick receives the sum over ticks. May be `drive`.
        grad_layer: of the layer's parameters; added to, if `learns`.
    """
    batch, ticks, _ = grad.currents.shape
    size = readout.shape[1]
    share = np.float32(1.0 / ticks)
    constant = drive.shape[1] == 1
    levels, clears = _levels(neurons), neurons.clears
    decays, grad_blocks = _by_block(neurons.decay), _by_block(grad_layer.neurons)
    records = np.empty((ticks + 1) * _RECORD, np.float32)
    last = records[ticks * _RECORD :]
    grad_spikes = np.empty((ticks, size), np.float32)
    for row in range(batch):
        for tick in range(ticks):
            _grad_spikes(grad, readout, share, row, tick, grad_spikes[tick])
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            _read_state(records, state, row, block)
            for tick in range(ticks):
                now = drive[row, 0 if constant else tick, block]
                _tick_again(records[tick * _RECORD :], now, decays[number], levels, clears, surrogate)
            _read_grad_state(last, grad.state, row, block)
            for tick in range(ticks - 1, -1, -1):
                pair = records[tick * _RECORD :]
                g_spikes, g_parameters = grad_spikes[tick, block], grad_blocks[number]
                _tick_back(pair, g_spikes, decays[number], levels, clears, learns, g_parameters)
                g_drive = grad_drive[row, 0 if constant else tick, block]
                if constant and tick < ticks - 1:
                    for i in range(g_drive.shape[0]):
                        g_drive[i] += pair[_SLOPE + i]
                else:
                    _write(pair, _SLOPE, g_drive)
            _write_grad_state(records, grad.state, row, block)
        for tick in range(ticks if learns else 0):
            _add_to_rows(_fired_in(fired, row, tick), grad.currents[row, tick], grad_layer.readout)
    _to_neurons(grad_blocks, grad_layer.neurons)


def empty_lists(*shape: int) -> Fired:
    """Room for index lists of the neurons that fire, of shape [..., batch, ticks, neurons]."""
    *outer, batch, ticks, neurons = shape
    return Fired(np.empty((*outer, batch * ticks * neurons), np.int32), np.empty((*outer, batch, ticks), np.int32))


@compiled(**_OPTIONS)
def add_fired(fired: Fired, weights: np.ndarray, into: np.ndarray) -> None:
    """Add the weights of the neurons that fired: spikes @ weights.

    Args:
        fired: index lists of these neurons.
        weights: [neurons, width].
        into: what is added to, [batch, ticks, width].
    """
    batch, ticks, _ = into.shape
    for row in range(batch):
        for tick in range(ticks):
            _add_rows(_fired_in(fired, row, tick), weights, into[row, tick])


@compiled(**_OPTIONS)
def add_to_fired(fired: Fired, grad: np.ndarray, grad_weights: np.ndarray) -> None:
    """Add to the gradients of the weights of the neurons that fired: the transpose of spikes, @ grad.

    Args:
        fired: index lists of these neurons.
        grad: of what `add_fired` added to, [batch, ticks, width].
        grad_weights: of its weights, [neurons, width]; added to.
    """
    batch, ticks, _ = grad.shape
    for row in range(batch):
        for tick in range(ticks):
            _add_to_rows(_fired_in(fired, row, tick), grad[row, tick], grad_weights)


@compiled(**_OPTIONS)
def write_spikes(fired: Fired, spikes: np.ndarray) -> None:
    """Write the spikes of the neurons that fired, in {0, 1}, [ticks, batch, neurons]."""
    ticks, batch, _ = spikes.shape
    spikes[:] = _ZERO
    for row in range(batch):
        for tick in range(ticks):
            for j in _fired_in(fired, row, tick):
                spikes[tick, row, j] = _ONE


@compiled(**_OPTIONS)
def tick_wise_forward(
    fed: np.ndarray,
    before: np.ndarray,
    state: np.ndarray,
    neurons: Neurons,
    recurrence: Connection,
    readout: np.ndarray,
    result: StepResult,
    last_spikes: np.ndarray,
    record: TickWiseRecord,
) -> None:
    """`scan_forward` where every tick also receives the layer's own spikes of the tick before.

    Args:
        fed: the drive without them, [batch, ticks, neurons], or [batch, 1, neurons] if it is constant.
        before: spikes of the tick before the step, [batch, neurons].
        state, neurons, readout, result: see `scan_forward`.
        recurrence: weights behind the spikes of the tick before.
        last_spikes: receives the spikes of the last tick, [batch, neurons].
        record: receives what the backward pass needs.
    """
    fired, drive = result.fired, record.drive
    batch, ticks, size = drive.shape
    constant = fed.shape[1] == 1
    share = np.float32(1.0 / ticks)
    levels = _levels(neurons)
    decays = _by_block(neurons.decay)
    states = np.zeros((decays.shape[0], _STATE), np.float32)
    now, now_fired = np.empty(size, np.float32), np.empty(size, np.int32)
    index = np.empty(size + 1, np.int32)
    end = 0
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            _read_state(states[number], state, row, block)
            states[number, _MEAN:] = _ZERO
        last_spikes[row] = before[row]
        for tick in range(ticks):
            now[:] = fed[row, 0 if constant else tick]
            # Spikes are sparse: adding up the rows of the neurons that fired is cheaper than a product with all rows.
            active = index[: _find(last_spikes[row], index)]
            if recurrence.spread.shape[0] > 0:
                own_latent = record.latent[row, tick]
                own_latent[:] = _ZERO
                _add_rows(active, recurrence.gather, own_latent)
                _add_product(own_latent, recurrence.spread, now)
            else:
                _add_rows(active, recurrence.gather, now)
            drive[row, tick] = now
            now_fired[:] = _NO_BIT
            for number in range(decays.shape[0]):
                block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
                own, bit = states[number], np.int32(1)
                _tick(own, now[block], decays[number], levels, neurons.clears, share, bit, now_fired[block])
            last_spikes[row] = now_fired
            end += _find(now_fired, fired.neurons[end:])
            fired.ends[row, tick] = end
            _add_rows(_fired_in(fired, row, tick), readout, result.currents[row, tick])
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            _write_state(states[number], result.state, row, block)
            _write(states[number], _MEAN, result.mean_spikes[row, block])


@compiled(**_OPTIONS)
def tick_wise_again(
    drive: np.ndarray, state: np.ndarray, neurons: Neurons, surrogate: int, grad_state: np.ndarray, records: np.ndarray
) -> None:
    """Run the ticks of a tick-wise recurrent step once more, before `tick_wise_back` goes back through them.

    Args:
        drive: that `tick_wise_forward` recorded, [batch, ticks, neurons].
        state: before the step, see `scan_forward`.
        neurons: their parameters.
        surrogate: its code.
        grad_state: of the first three of the state after the step, [batch, 3, neurons].
        records: receives what the way back needs, of the shape that `tick_wise_records` gives.
    """
    batch, ticks, size = drive.shape
    levels = _levels(neurons)
    decays = _by_block(neurons.decay)
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            own = records[row, number]
            _read_state(own, state, row, block)
            for tick in range(ticks):
                now = drive[row, tick, block]
                _tick_again(own[tick * _RECORD :], now, decays[number], levels, neurons.clears, surrogate)
            _read_grad_state(own[ticks * _RECORD :], grad_state, row, block)


@compiled(**_OPTIONS)
def tick_wise_back(
    tick: int,
    grad: StepGradient,
    grad_fed_back: np.ndarray,
    readout: np.ndarray,
    neurons: Neurons,
    fired: Fired,
    learns: bool,
    records: np.ndarray,
    grad_now: np.ndarray,
    grad_layer: LayerGradient,
) -> None:
    """Back-propagate through one tick of `tick_wise_forward`, all rows together; ticks must come in reverse order.

    The products with recurrent weights lie between the ticks, and are left to the caller, for whom they are large.

    Args:
        tick: its number.
        grad, readout, neurons, fired, learns, grad_layer: see `scan_backward`; the first tick overwrites `grad.state`.
        grad_fed_back: gradient of this tick's spikes from what they fed back, [batch, neurons].
        records: that `tick_wise_again` filled.
        grad_now: receives the gradient of this tick's drive, [batch, neurons].
    """
    batch, ticks, _ = grad.currents.shape
    size = readout.shape[1]
    share = np.float32(1.0 / ticks)
    levels = _levels(neurons)
    decays, grad_blocks = _by_block(neurons.decay), _by_block(grad_layer.neurons)
    g_spikes = np.empty(size, np.float32)
    for row in range(batch):
        _grad_spikes(grad, readout, share, row, tick, g_spikes)
        for i in range(size):
            g_spikes[i] += grad_fed_back[row, i]
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, size))
            pair = records[row, number, tick * _RECORD :]
            g_parameters = grad_blocks[number]
            _tick_back(pair, g_spikes[block], decays[number], levels, neurons.clears, learns, g_parameters)
            _write(pair, _SLOPE, grad_now[row, block])
            if tick == 0:
                _write_grad_state(pair, grad.state, row, block)
        if learns:
            _add_to_rows(_fired_in(fired, row, tick), grad.currents[row, tick], grad_layer.readout)
    _to_neurons(grad_blocks, grad_layer.neurons)


def tick_wise_records(batch: int, ticks: int, neurons: int) -> np.ndarray:
    """Room for the records of a step, [batch, blocks of neurons, ...]."""
    return np.empty((batch, -(-neurons // _BLOCK), (ticks + 1) * _RECORD), np.float32)


@compiled(**_OPTIONS)
def add_to_fed_back(before: np.ndarray, fired: Fired, grad: np.ndarray, grad_gather: np.ndarray) -> None:
    """Add to the gradient of the weights behind the spikes of the tick before, tick by tick.

    Args:
        before: spikes of the tick before the step, [batch, neurons].
        fired: the neurons that fired in the step.
        grad: of what they fed back, [ticks, batch, width].
        grad_gather: of the weights, [neurons, width]; added to.
    """
    ticks, batch, _ = grad.shape
    index = np.empty(before.shape[1] + 1, np.int32)
    for row in range(batch):
        for tick in range(ticks):
            active = _fired_in(fired, row, tick - 1) if tick > 0 else index[: _find(before[row], index)]
            _add_to_rows(active, grad[tick, row], grad_gather)


@compiled(**_OPTIONS)
def readout_forward(
    currents: np.ndarray, before: Integrators, readout: Readout, after: Integrators, output: np.ndarray
) -> None:
    """The readout over the ticks of a step in closed form, see `readout.readout_response`.

    Args:
        currents: [batch, ticks, outputs].
        before: its state before the step.
        readout: its coefficients.
        after: receives its state after the step.
        output: receives the output, [batch, outputs].
    """
    batch, ticks, outputs = currents.shape
    for row in range(batch):
        for o in range(outputs):
            syn = readout.synaptic_keep[o] * before.synaptic[row, o]
            mem = readout.membrane_keep[o] * before.membrane[row, o]
            mem += readout.membrane_from_synaptic[o] * before.synaptic[row, o]
            for tick in range(ticks):
                syn += readout.synaptic_gain[tick, o] * currents[row, tick, o]
                mem += readout.membrane_gain[tick, o] * currents[row, tick, o]
            after.synaptic[row, o] = syn
            after.membrane[row, o] = mem
            output[row, o] = mem * readout.output_gain[o]


@compiled(**_EXACT)
def rounded_readout(
    currents: np.ndarray,
    before: Integrators,
    readout: Readout,
    rounding: Rounding,
    after: Integrators,
    output: np.ndarray,
) -> None:
    """The readout tick by tick with a state that is rounded whenever it is written.

    Equal bit for bit to `readout.rounded_read_out`.

    Args:
        currents, before, after, output: see `readout_forward`.
        readout: its coefficients over one tick.
        rounding: of its state.
    """
    batch, ticks, outputs = currents.shape
    grid = _grid(rounding)
    for row in range(batch):
        for o in range(outputs):
            syn, mem = before.synaptic[row, o], before.membrane[row, o]
            keep, gain = readout.membrane_keep[o], readout.membrane_gain[0, o]
            for tick in range(ticks):
                syn = _nearest(readout.synaptic_keep[o] * syn + currents[row, tick, o], grid)
                mem = _nearest(keep * mem + gain * syn, grid)
            after.synaptic[row, o] = syn
            after.membrane[row, o] = mem
            output[row, o] = mem * readout.output_gain[o]


@compiled(**_OPTIONS)
def readout_backward(
    grad_output: np.ndarray,
    grad: Integrators,
    currents: np.ndarray,
    before: Integrators,
    membrane_after: np.ndarray,
    readout: Readout,
    grad_currents: np.ndarray,
    grad_readout: Readout,
) -> None:
    """Back-propagate through `readout_forward`.

    Args:
        grad_output: of the output, [batch, outputs].
        grad: of the state after the step; overwritten by that of the state before it.
        currents, before, readout: see `readout_forward`.
        membrane_after: that it left, [batch, outputs].
        grad_currents: receives the gradient of the currents.
        grad_readout: of the coefficients; added to.
    """
    batch, ticks, outputs = currents.shape
    for row in range(batch):
        for o in range(outputs):
            grad_readout.output_gain[o] += grad_output[row, o] * membrane_after[row, o]
            g_mem = grad.membrane[row, o] + grad_output[row, o] * readout.output_gain[o]
            g_syn = grad.synaptic[row, o]
            for tick in range(ticks):
                current = currents[row, tick, o]
                from_synaptic, from_membrane = (
                    g_syn * readout.synaptic_gain[tick, o],
                    g_mem * readout.membrane_gain[tick, o],
                )
                grad_currents[row, tick, o] = from_synaptic + from_membrane
                grad_readout.synaptic_gain[tick, o] += g_syn * current
                grad_readout.membrane_gain[tick, o] += g_mem * current
            grad_readout.synaptic_keep[o] += g_syn * before.synaptic[row, o]
            grad_readout.membrane_keep[o] += g_mem * before.membrane[row, o]
            grad_readout.membrane_from_synaptic[o] += g_mem * before.synaptic[row, o]
            grad.synaptic[row, o] = g_syn * readout.synaptic_keep[o] + g_mem * readout.membrane_from_synaptic[o]
            grad.membrane[row, o] = g_mem * readout.membrane_keep[o]


@compiled(**_OPTIONS)
def layer_step(
    fed: np.ndarray,
    source: Fired,
    mean_before: np.ndarray,
    state: np.ndarray,
    weights: LayerWeights,
    result: StepResult,
    spikes: np.ndarray,
) -> None:
    """The ticks of one layer, for a batch of one.

    Args:
        fed: constant drive, [neurons].
        source: the neurons of the layer before that fired; without rows for the first layer.
        mean_before: mean spikes of this layer in the step before, [neurons].
        state: before the step, [1, 4, neurons].
        weights: of the layer.
        result: receives what the step leaves.
        spikes: receives the spikes, in {0, 1}, [ticks, 1, neurons].
    """
    forward, recurrent = weights.forward, weights.recurrent
    ticks, size = result.currents.shape[1], fed.shape[0]
    constant = fed.copy()
    if recurrent.spread.shape[0] > 0:
        own_latent = np.zeros(recurrent.spread.shape[0], np.float32)
        _add_product(mean_before, recurrent.gather, own_latent)
        _add_product(own_latent, recurrent.spread, constant)
    elif recurrent.gather.shape[0] > 0:
        _add_product(mean_before, recurrent.gather, constant)
    is_fed_by_spikes = source.ends.shape[0] > 0
    drive = np.empty((1, ticks if is_fed_by_spikes else 1, size), np.float32)
    drive[0, :] = constant
    if is_fed_by_spikes and forward.spread.shape[0] > 0:
        latent = np.zeros((1, ticks, forward.spread.shape[0]), np.float32)
        add_fired(source, forward.gather, latent)
        for tick in range(ticks):
            _add_product(latent[0, tick], forward.spread, drive[0, tick])
    elif is_fed_by_spikes:
        add_fired(source, forward.gather, drive)
    scan_forward(drive, state, weights.neurons, weights.readout, result)
    write_spikes(result.fired, spikes)
