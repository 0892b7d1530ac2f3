"""Compiled kernels that run all ticks of one control step of a spiking layer in one pass over memory.

The mathematics is that of `neurons.adaptive_lif_step`; the plain PyTorch loop there is the reference that these
kernels are tested against. Arrays are float32 and C-contiguous: `[ticks, batch, neurons]` over a step,
`[batch, neurons]` for a state, `[neurons]` for a parameter. A drive of one tick is held constant over the step.

A row of the batch is worked off block by block of neurons, all ticks of a block while it lies in the fastest cache.
What a block carries from tick to tick stands in one scratch array, at offsets that are known at compile time: there
the compiler sees by itself that nothing overlaps, and vectorises a loop over neurons however much it does.
"""

from typing import Any, Final

import numpy as np
from numba import njit

from spiking_controller.snn.surrogate import (
    GAUSSIAN_SHARPNESS,
    SIDE_LOBE_HEIGHT,
    SIDE_LOBE_WIDTH,
    SIGMOID_SLOPE,
    SUPERSPIKE_SLOPE,
    multi_gaussian_peak,
)

_OPTIONS: Any = {"cache": True, "fastmath": True, "error_model": "numpy", "nogil": True}
_INLINE: Any = {"fastmath": True, "error_model": "numpy", "inline": "always"}

SURROGATE_CODES: Final = {"gaussian": 0, "multi_gaussian": 1, "superspike": 2, "sigmoid": 3}

_HALF_SQUARED_SHARPNESS: Final = np.float32(-0.5 * GAUSSIAN_SHARPNESS**2)
_SHARPNESS: Final = np.float32(GAUSSIAN_SHARPNESS)
_CENTRE_HEIGHT: Final = np.float32((1.0 + SIDE_LOBE_HEIGHT) / multi_gaussian_peak())
_LOBE_HEIGHT: Final = np.float32(SIDE_LOBE_HEIGHT / SIDE_LOBE_WIDTH / multi_gaussian_peak())
_LOBE_EXPONENT: Final = np.float32(-0.5 / SIDE_LOBE_WIDTH**2)
_SUPERSPIKE_SLOPE: Final = np.float32(SUPERSPIKE_SLOPE)
_SIGMOID_SLOPE: Final = np.float32(SIGMOID_SLOPE)
_BLOCK: Final = 128
"""Neurons that go through the ticks together."""
# Offsets in the scratch array of a block: its state, and the mean of its spikes.
_SYNAPTIC, _MEMBRANE, _ADAPTATION, _BASE, _MEAN = (field * _BLOCK for field in range(5))
_STATE: Final = 5 * _BLOCK
# A record of a tick in the backward pass begins with the state before the tick, as above. Then come the gradients of
# that state, and the surrogate derivative, whose place the gradient of the drive takes.
_GRAD_SYNAPTIC, _GRAD_MEMBRANE, _GRAD_ADAPTATION, _SLOPE = (field * _BLOCK for field in range(4, 8))
_RECORD: Final = 8 * _BLOCK
# Offsets in the decay factors of a block, and in their gradients.
_DECAY_SYNAPTIC, _DECAY_MEMBRANE, _DECAY_ADAPTATION = (field * _BLOCK for field in range(3))
_DECAYS: Final = 3 * _BLOCK
_ONE: Final = np.float32(1.0)
_ZERO: Final = np.float32(0.0)
_LOWEST: Final = np.float32(-80.0)
_SHARE: Final = np.float32(1.0 / 64.0)
_C2: Final = np.float32(1.0 / 2.0)
_C3: Final = np.float32(1.0 / 3.0)
_C4: Final = np.float32(1.0 / 4.0)
_C5: Final = np.float32(1.0 / 5.0)
_C6: Final = np.float32(1.0 / 6.0)


@njit(**_INLINE)
def _exp_of_negative(exponent):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0 as the 64th power of a series for exp(x/64): plain arithmetic, which vectorises.

    Exact to about 1e-5 of the value where that matters (x > -30), and below 1e-30 beyond.
    """
    x = max(exponent, _LOWEST) * _SHARE
    y = _ONE + x * (_ONE + x * _C2 * (_ONE + x * _C3 * (_ONE + x * _C4 * (_ONE + x * _C5 * (_ONE + x * _C6)))))
    y = y * y
    y = y * y
    y = y * y
    y = y * y
    y = y * y
    return y * y


@njit(**_INLINE)
def _apply_surrogate(above, code):  # type: ignore[no-untyped-def]
    """Replace membrane - threshold by the surrogate derivative there, see `surrogate.py`; [neurons]."""
    if code == 0:
        for i in range(above.shape[0]):
            above[i] = _exp_of_negative(above[i] * above[i] * _HALF_SQUARED_SHARPNESS)
    elif code == 1:
        for i in range(above.shape[0]):
            x = above[i] * _SHARPNESS
            left = x + _ONE
            right = x - _ONE
            centre = _exp_of_negative(above[i] * above[i] * _HALF_SQUARED_SHARPNESS)
            lobes = _exp_of_negative(left * left * _LOBE_EXPONENT) + _exp_of_negative(right * right * _LOBE_EXPONENT)
            above[i] = _CENTRE_HEIGHT * centre - _LOBE_HEIGHT * lobes
    elif code == 2:
        for i in range(above.shape[0]):
            x = _ONE + _SUPERSPIKE_SLOPE * abs(above[i])
            above[i] = _ONE / (x * x)
    else:
        for i in range(above.shape[0]):
            e = _exp_of_negative(-_SIGMOID_SLOPE * abs(above[i]))
            above[i] = _SIGMOID_SLOPE * e / ((_ONE + e) * (_ONE + e))


@njit(**_INLINE)
def _by_block(synaptic, membrane, adaptation):  # type: ignore[no-untyped-def]
    """Decay factors, or their gradients, [neurons] each, as the blocks take them, [blocks, _DECAYS]."""
    neurons = synaptic.shape[0]
    blocks = np.zeros(((neurons + _BLOCK - 1) // _BLOCK, _DECAYS), np.float32)
    for n in range(neurons):
        block, i = n // _BLOCK, n % _BLOCK
        blocks[block, _DECAY_SYNAPTIC + i] = synaptic[n]
        blocks[block, _DECAY_MEMBRANE + i] = membrane[n]
        blocks[block, _DECAY_ADAPTATION + i] = adaptation[n]
    return blocks


@njit(**_INLINE)
def _to_neurons(blocks, synaptic, membrane, adaptation):  # type: ignore[no-untyped-def]
    """The inverse of `_by_block`."""
    for n in range(synaptic.shape[0]):
        block, i = n // _BLOCK, n % _BLOCK
        synaptic[n] = blocks[block, _DECAY_SYNAPTIC + i]
        membrane[n] = blocks[block, _DECAY_MEMBRANE + i]
        adaptation[n] = blocks[block, _DECAY_ADAPTATION + i]


@njit(**_INLINE)
def _read(scratch, offset, source):  # type: ignore[no-untyped-def]
    for i in range(source.shape[0]):
        scratch[offset + i] = source[i]


@njit(**_INLINE)
def _write(scratch, offset, into):  # type: ignore[no-untyped-def]
    for i in range(into.shape[0]):
        into[i] = scratch[offset + i]


@njit(**_INLINE)
def _tick(state, drive, decays, levels, share, fired):  # type: ignore[no-untyped-def]
    """One tick of a block: changes its state, and fills `fired`, [neurons of the block]."""
    rest, decrement, strength = levels
    for i in range(fired.shape[0]):
        keep = decays[_DECAY_MEMBRANE + i]
        current = decays[_DECAY_SYNAPTIC + i] * state[_SYNAPTIC + i] + drive[i]
        charged = keep * state[_MEMBRANE + i] + (_ONE - keep) * current
        base = state[_BASE + i] - decrement
        threshold = base + strength * state[_ADAPTATION + i]
        spike = _ONE if charged > threshold else _ZERO
        state[_SYNAPTIC + i] = current
        state[_MEMBRANE + i] = charged - spike * threshold
        state[_ADAPTATION + i] = decays[_DECAY_ADAPTATION + i] * state[_ADAPTATION + i] + spike
        state[_BASE + i] = rest if charged > threshold else base
        state[_MEAN + i] += share * spike
        fired[i] = spike


@njit(**_OPTIONS)
def scan_forward(
    drive: np.ndarray,
    synaptic_current: np.ndarray,
    membrane: np.ndarray,
    adaptation: np.ndarray,
    base: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    base_rest: float,
    base_decrement: float,
    adaptation_strength: float,
    spikes: np.ndarray,
    synaptic_out: np.ndarray,
    membrane_out: np.ndarray,
    adaptation_out: np.ndarray,
    base_out: np.ndarray,
    mean_spikes: np.ndarray,
) -> None:
    """Run every tick: fills `spikes` [ticks, batch, neurons], the state after the step and the mean over ticks."""
    ticks, batch, neurons = spikes.shape
    constant = drive.shape[0] == 1
    share = np.float32(1.0 / ticks)
    levels = np.float32(base_rest), np.float32(base_decrement), np.float32(adaptation_strength)
    decays = _by_block(decay_synaptic, decay_membrane, decay_adaptation)
    state = np.empty(_STATE, np.float32)
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _read(state, _SYNAPTIC, synaptic_current[row, block])
            _read(state, _MEMBRANE, membrane[row, block])
            _read(state, _ADAPTATION, adaptation[row, block])
            _read(state, _BASE, base[row, block])
            state[_MEAN:] = _ZERO
            for tick in range(ticks):
                now = drive[0 if constant else tick, row, block]
                _tick(state, now, decays[number], levels, share, spikes[tick, row, block])
            _write(state, _SYNAPTIC, synaptic_out[row, block])
            _write(state, _MEMBRANE, membrane_out[row, block])
            _write(state, _ADAPTATION, adaptation_out[row, block])
            _write(state, _BASE, base_out[row, block])
            _write(state, _MEAN, mean_spikes[row, block])


@njit(**_INLINE)
def _tick_again(records, drive, decays, levels, surrogate):  # type: ignore[no-untyped-def]
    """`_tick` in the backward pass: from one record into the next; leaves the surrogate derivative in the first."""
    rest, decrement, strength = levels
    for i in range(drive.shape[0]):
        keep = decays[_DECAY_MEMBRANE + i]
        current = decays[_DECAY_SYNAPTIC + i] * records[_SYNAPTIC + i] + drive[i]
        charged = keep * records[_MEMBRANE + i] + (_ONE - keep) * current
        base = records[_BASE + i] - decrement
        threshold = base + strength * records[_ADAPTATION + i]
        above = charged - threshold
        spike = _ONE if above > _ZERO else _ZERO
        records[_RECORD + _SYNAPTIC + i] = current
        records[_RECORD + _MEMBRANE + i] = charged - spike * threshold
        records[_RECORD + _ADAPTATION + i] = decays[_DECAY_ADAPTATION + i] * records[_ADAPTATION + i] + spike
        records[_RECORD + _BASE + i] = rest if above > _ZERO else base
        records[_SLOPE + i] = above
    _apply_surrogate(records[_SLOPE : _SLOPE + drive.shape[0]], surrogate)


@njit(**_INLINE)
def _tick_back(records, grad_spikes, grad_mean, decays, strength, share, learns, grad_decays):  # type: ignore[no-untyped-def]
    """The way back through one tick of a block: from the gradients in its second record to those in its first."""
    size = grad_spikes.shape[0]
    for i in range(size):
        on_spike = grad_spikes[i] + share * grad_mean[i] + records[_RECORD + _GRAD_ADAPTATION + i]
        records[_SLOPE + i] *= on_spike
    if learns:
        for i in range(size):
            current = records[_RECORD + _SYNAPTIC + i]
            g_charged = records[_RECORD + _GRAD_MEMBRANE + i] + records[_SLOPE + i]
            g_current = records[_RECORD + _GRAD_SYNAPTIC + i] + (_ONE - decays[_DECAY_MEMBRANE + i]) * g_charged
            grad_decays[_DECAY_ADAPTATION + i] += records[_RECORD + _GRAD_ADAPTATION + i] * records[_ADAPTATION + i]
            grad_decays[_DECAY_MEMBRANE + i] += g_charged * (records[_MEMBRANE + i] - current)
            grad_decays[_DECAY_SYNAPTIC + i] += g_current * records[_SYNAPTIC + i]
    for i in range(size):
        g_above = records[_SLOPE + i]
        g_charged = records[_RECORD + _GRAD_MEMBRANE + i] + g_above
        g_current = records[_RECORD + _GRAD_SYNAPTIC + i] + (_ONE - decays[_DECAY_MEMBRANE + i]) * g_charged
        g_adaptation = decays[_DECAY_ADAPTATION + i] * records[_RECORD + _GRAD_ADAPTATION + i]
        records[_GRAD_ADAPTATION + i] = g_adaptation - strength * g_above
        records[_GRAD_MEMBRANE + i] = g_charged * decays[_DECAY_MEMBRANE + i]
        records[_GRAD_SYNAPTIC + i] = g_current * decays[_DECAY_SYNAPTIC + i]
        records[_SLOPE + i] = g_current


@njit(**_OPTIONS)
def scan_backward(
    grad_spikes: np.ndarray,
    grad_mean_spikes: np.ndarray,
    grad_synaptic: np.ndarray,
    grad_membrane: np.ndarray,
    grad_adaptation: np.ndarray,
    drive: np.ndarray,
    synaptic_current: np.ndarray,
    membrane: np.ndarray,
    adaptation: np.ndarray,
    base: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    base_rest: float,
    base_decrement: float,
    adaptation_strength: float,
    surrogate: int,
    learns_decay: bool,
    grad_drive: np.ndarray,
    grad_decay_synaptic: np.ndarray,
    grad_decay_membrane: np.ndarray,
    grad_decay_adaptation: np.ndarray,
) -> None:
    """Back-propagate through every tick; the ticks of a row are run once more instead of being kept.

    The gradients of the state after the step (`grad_synaptic`, `grad_membrane`, `grad_adaptation`) are overwritten
    by those of the state before it. `grad_drive` is overwritten; a drive of one tick receives the sum over ticks. The
    three decay gradients are added to what is there, if `learns_decay`.
    """
    ticks, batch, neurons = grad_spikes.shape
    share = np.float32(1.0 / ticks)
    constant = drive.shape[0] == 1
    levels = np.float32(base_rest), np.float32(base_decrement), np.float32(adaptation_strength)
    decays = _by_block(decay_synaptic, decay_membrane, decay_adaptation)
    grad_decays = _by_block(grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation)
    records = np.empty((ticks + 1) * _RECORD, np.float32)
    last = records[ticks * _RECORD :]
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _read(records, _SYNAPTIC, synaptic_current[row, block])
            _read(records, _MEMBRANE, membrane[row, block])
            _read(records, _ADAPTATION, adaptation[row, block])
            _read(records, _BASE, base[row, block])
            for tick in range(ticks):
                now = drive[0 if constant else tick, row, block]
                _tick_again(records[tick * _RECORD :], now, decays[number], levels, surrogate)
            _read(last, _GRAD_SYNAPTIC, grad_synaptic[row, block])
            _read(last, _GRAD_MEMBRANE, grad_membrane[row, block])
            _read(last, _GRAD_ADAPTATION, grad_adaptation[row, block])
            for back in range(ticks):
                tick = ticks - 1 - back
                pair = records[tick * _RECORD :]
                _tick_back(
                    pair,
                    grad_spikes[tick, row, block],
                    grad_mean_spikes[row, block],
                    decays[number],
                    levels[2],
                    share,
                    learns_decay,
                    grad_decays[number],
                )
                g_drive = grad_drive[0 if constant else tick, row, block]
                if constant and back > 0:
                    for i in range(g_drive.shape[0]):
                        g_drive[i] += pair[_SLOPE + i]
                else:
                    _write(pair, _SLOPE, g_drive)
            _write(records, _GRAD_SYNAPTIC, grad_synaptic[row, block])
            _write(records, _GRAD_MEMBRANE, grad_membrane[row, block])
            _write(records, _GRAD_ADAPTATION, grad_adaptation[row, block])
    _to_neurons(grad_decays, grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation)


@njit(**_INLINE)
def _find(spikes, index):  # type: ignore[no-untyped-def]
    """Write the numbers of the neurons that fired into `index`, [neurons + 1]; returns how many there are."""
    count = 0
    for j in range(spikes.shape[0]):
        index[count] = j
        count += spikes[j] > _ZERO
    return count


@njit(**_INLINE)
def _add_rows(index, count, rows, into):  # type: ignore[no-untyped-def]
    """Add `count` rows of that index to `into`, four in one pass; [rows, n], [n]."""
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
def _add_to_rows(index, count, row, rows):  # type: ignore[no-untyped-def]
    """Add `row` to `count` rows of that index; [n], [rows, n]."""
    for k in range(count):
        a = index[k]
        for i in range(row.shape[0]):
            rows[a, i] += row[i]


@njit(**_INLINE)
def _add_product(scale, rows, into):  # type: ignore[no-untyped-def]
    """into += scale @ rows, four rows in one pass; [k], [k, n], [n]."""
    whole = rows.shape[0] - rows.shape[0] % 4
    for r in range(0, whole, 4):
        a, b, c, d = scale[r], scale[r + 1], scale[r + 2], scale[r + 3]
        for i in range(into.shape[0]):
            into[i] += (a * rows[r, i] + b * rows[r + 1, i]) + (c * rows[r + 2, i] + d * rows[r + 3, i])
    for r in range(whole, rows.shape[0]):
        for i in range(into.shape[0]):
            into[i] += scale[r] * rows[r, i]


@njit(**_INLINE)
def _dot_rows(rows, vector, into):  # type: ignore[no-untyped-def]
    """into = rows @ vector, four rows in one pass; [k, n], [n], [k]."""
    whole = rows.shape[0] - rows.shape[0] % 4
    for r in range(0, whole, 4):
        a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
        for i in range(vector.shape[0]):
            a += rows[r, i] * vector[i]
            b += rows[r + 1, i] * vector[i]
            c += rows[r + 2, i] * vector[i]
            d += rows[r + 3, i] * vector[i]
        into[r], into[r + 1], into[r + 2], into[r + 3] = a, b, c, d
    for r in range(whole, rows.shape[0]):
        a = _ZERO
        for i in range(vector.shape[0]):
            a += rows[r, i] * vector[i]
        into[r] = a


@njit(**_OPTIONS)
def tick_wise_forward(
    fed: np.ndarray,
    synaptic_current: np.ndarray,
    membrane: np.ndarray,
    adaptation: np.ndarray,
    base: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    base_rest: float,
    base_decrement: float,
    adaptation_strength: float,
    gather: np.ndarray,
    spread: np.ndarray,
    spikes: np.ndarray,
    latent: np.ndarray,
    drive: np.ndarray,
    synaptic_out: np.ndarray,
    membrane_out: np.ndarray,
    adaptation_out: np.ndarray,
    base_out: np.ndarray,
) -> None:
    """`scan_forward` where every tick also receives the layer's spikes of the tick before, s·gather·spread.

    `fed` is the drive without them; `gather` [neurons, rank] and `spread` [rank, neurons], or [neurons, neurons] and no
    rows. `spikes` [1 + ticks, batch, neurons] begins with the tick before the step. For the backward pass, `latent`
    [ticks, batch, rank] receives s·gather, and `drive` [ticks, batch, neurons] the whole drive; it may be `fed`.
    """
    ticks, batch, neurons = drive.shape
    constant = fed.shape[0] == 1
    levels = np.float32(base_rest), np.float32(base_decrement), np.float32(adaptation_strength)
    decays = _by_block(decay_synaptic, decay_membrane, decay_adaptation)
    states = np.zeros((decays.shape[0], _STATE), np.float32)
    now = np.empty(neurons, np.float32)
    index = np.empty(neurons + 1, np.int64)
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _read(states[number], _SYNAPTIC, synaptic_current[row, block])
            _read(states[number], _MEMBRANE, membrane[row, block])
            _read(states[number], _ADAPTATION, adaptation[row, block])
            _read(states[number], _BASE, base[row, block])
        for tick in range(ticks):
            now[:] = fed[0 if constant else tick, row]
            # Spikes are few: adding up their rows takes less than a product with all of them.
            count = _find(spikes[tick, row], index)
            if spread.shape[0] > 0:
                own_latent = latent[tick, row]
                own_latent[:] = _ZERO
                _add_rows(index, count, gather, own_latent)
                _add_product(own_latent, spread, now)
            else:
                _add_rows(index, count, gather, now)
            drive[tick, row] = now
            for number in range(decays.shape[0]):
                block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
                _tick(states[number], now[block], decays[number], levels, _ZERO, spikes[tick + 1, row, block])
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _write(states[number], _SYNAPTIC, synaptic_out[row, block])
            _write(states[number], _MEMBRANE, membrane_out[row, block])
            _write(states[number], _ADAPTATION, adaptation_out[row, block])
            _write(states[number], _BASE, base_out[row, block])


@njit(**_OPTIONS)
def tick_wise_backward(
    grad_spikes: np.ndarray,
    grad_mean_spikes: np.ndarray,
    grad_fed_back: np.ndarray,
    grad_synaptic: np.ndarray,
    grad_membrane: np.ndarray,
    grad_adaptation: np.ndarray,
    drive: np.ndarray,
    spikes: np.ndarray,
    synaptic_current: np.ndarray,
    membrane: np.ndarray,
    adaptation: np.ndarray,
    base: np.ndarray,
    decay_synaptic: np.ndarray,
    decay_membrane: np.ndarray,
    decay_adaptation: np.ndarray,
    base_rest: float,
    base_decrement: float,
    adaptation_strength: float,
    gathered: np.ndarray,
    spread: np.ndarray,
    surrogate: int,
    learns: bool,
    grad_drive: np.ndarray,
    grad_gather: np.ndarray,
    grad_decay_synaptic: np.ndarray,
    grad_decay_membrane: np.ndarray,
    grad_decay_adaptation: np.ndarray,
) -> None:
    """Back-propagate through `tick_wise_forward`, as `scan_backward` does through `scan_forward`.

    `gathered` is `gather` transposed. `grad_fed_back` [batch, neurons], the gradient of the last tick's spikes from the
    step after, is overwritten by that of the spikes of the tick before the step. `grad_gather` is added to, if
    `learns`; the gradient of `spread` is left to the caller: the product of `latent` and `grad_drive`.
    """
    ticks, batch, neurons = grad_spikes.shape
    share = np.float32(1.0 / ticks)
    levels = np.float32(base_rest), np.float32(base_decrement), np.float32(adaptation_strength)
    decays = _by_block(decay_synaptic, decay_membrane, decay_adaptation)
    grad_decays = _by_block(grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation)
    records = np.empty((decays.shape[0], (ticks + 1) * _RECORD), np.float32)
    g_spikes = np.empty(neurons, np.float32)
    g_latent = np.empty(spread.shape[0], np.float32)
    index = np.empty(neurons + 1, np.int64)
    for row in range(batch):
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _read(records[number], _SYNAPTIC, synaptic_current[row, block])
            _read(records[number], _MEMBRANE, membrane[row, block])
            _read(records[number], _ADAPTATION, adaptation[row, block])
            _read(records[number], _BASE, base[row, block])
            for tick in range(ticks):
                pair = records[number, tick * _RECORD :]
                _tick_again(pair, drive[tick, row, block], decays[number], levels, surrogate)
            last = records[number, ticks * _RECORD :]
            _read(last, _GRAD_SYNAPTIC, grad_synaptic[row, block])
            _read(last, _GRAD_MEMBRANE, grad_membrane[row, block])
            _read(last, _GRAD_ADAPTATION, grad_adaptation[row, block])
        g_fed_back = grad_fed_back[row]
        for back in range(ticks):
            tick = ticks - 1 - back
            direct, g_drive = grad_spikes[tick, row], grad_drive[tick, row]
            for i in range(neurons):
                g_spikes[i] = direct[i] + g_fed_back[i]
            for number in range(decays.shape[0]):
                block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
                pair = records[number, tick * _RECORD :]
                _tick_back(
                    pair,
                    g_spikes[block],
                    grad_mean_spikes[row, block],
                    decays[number],
                    levels[2],
                    share,
                    learns,
                    grad_decays[number],
                )
                _write(pair, _SLOPE, g_drive[block])
            g_fed_back[:] = _ZERO
            count = _find(spikes[tick, row], index) if learns else 0
            if spread.shape[0] > 0:
                _dot_rows(spread, g_drive, g_latent)
                _add_product(g_latent, gathered, g_fed_back)
                _add_to_rows(index, count, g_latent, grad_gather)
            else:
                _add_product(g_drive, gathered, g_fed_back)
                _add_to_rows(index, count, g_drive, grad_gather)
        for number in range(decays.shape[0]):
            block = slice(number * _BLOCK, min((number + 1) * _BLOCK, neurons))
            _write(records[number], _GRAD_SYNAPTIC, grad_synaptic[row, block])
            _write(records[number], _GRAD_MEMBRANE, grad_membrane[row, block])
            _write(records[number], _GRAD_ADAPTATION, grad_adaptation[row, block])
    _to_neurons(grad_decays, grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation)


@njit(**_OPTIONS)
def readout_forward(
    currents: np.ndarray,
    synaptic: np.ndarray,
    membrane: np.ndarray,
    synaptic_keep: np.ndarray,
    synaptic_gain: np.ndarray,
    membrane_keep: np.ndarray,
    membrane_from_synaptic: np.ndarray,
    membrane_gain: np.ndarray,
    output_gain: np.ndarray,
    synaptic_out: np.ndarray,
    membrane_out: np.ndarray,
    output: np.ndarray,
) -> None:
    """The readout over the ticks of a step in closed form, see `network.readout_response`.

    `currents` [ticks, batch, outputs], `*_gain` over ticks [ticks, outputs], state and output [batch, outputs], the
    rest [outputs].
    """
    ticks, batch, outputs = currents.shape
    for row in range(batch):
        for o in range(outputs):
            syn = synaptic_keep[o] * synaptic[row, o]
            mem = membrane_keep[o] * membrane[row, o] + membrane_from_synaptic[o] * synaptic[row, o]
            for tick in range(ticks):
                syn += synaptic_gain[tick, o] * currents[tick, row, o]
                mem += membrane_gain[tick, o] * currents[tick, row, o]
            synaptic_out[row, o] = syn
            membrane_out[row, o] = mem
            output[row, o] = mem * output_gain[o]


@njit(**_OPTIONS)
def readout_backward(
    grad_output: np.ndarray,
    grad_synaptic: np.ndarray,
    grad_membrane: np.ndarray,
    currents: np.ndarray,
    synaptic: np.ndarray,
    membrane: np.ndarray,
    membrane_after: np.ndarray,
    synaptic_keep: np.ndarray,
    synaptic_gain: np.ndarray,
    membrane_keep: np.ndarray,
    membrane_from_synaptic: np.ndarray,
    membrane_gain: np.ndarray,
    output_gain: np.ndarray,
    grad_currents: np.ndarray,
    grad_synaptic_keep: np.ndarray,
    grad_synaptic_gain: np.ndarray,
    grad_membrane_keep: np.ndarray,
    grad_membrane_from_synaptic: np.ndarray,
    grad_membrane_gain: np.ndarray,
    grad_output_gain: np.ndarray,
) -> None:
    """The backward pass of `readout_forward`.

    `grad_synaptic` and `grad_membrane` are overwritten by the gradients of the state before the step, `grad_currents`
    is overwritten, the gradients of the parameters are added to what is there.
    """
    ticks, batch, outputs = currents.shape
    for row in range(batch):
        for o in range(outputs):
            grad_output_gain[o] += grad_output[row, o] * membrane_after[row, o]
            g_mem = grad_membrane[row, o] + grad_output[row, o] * output_gain[o]
            g_syn = grad_synaptic[row, o]
            for tick in range(ticks):
                current = currents[tick, row, o]
                grad_currents[tick, row, o] = g_syn * synaptic_gain[tick, o] + g_mem * membrane_gain[tick, o]
                grad_synaptic_gain[tick, o] += g_syn * current
                grad_membrane_gain[tick, o] += g_mem * current
            grad_synaptic_keep[o] += g_syn * synaptic[row, o]
            grad_membrane_keep[o] += g_mem * membrane[row, o]
            grad_membrane_from_synaptic[o] += g_mem * synaptic[row, o]
            grad_synaptic[row, o] = g_syn * synaptic_keep[o] + g_mem * membrane_from_synaptic[o]
            grad_membrane[row, o] = g_mem * membrane_keep[o]


@njit(**_OPTIONS)
def layer_step(
    fed: np.ndarray,
    source: np.ndarray,
    gather: np.ndarray,
    spread: np.ndarray,
    mean_before: np.ndarray,
    own_gather: np.ndarray,
    own_spread: np.ndarray,
    state: tuple[np.ndarray, ...],
    decay: tuple[np.ndarray, ...],
    levels: tuple[float, float, float],
    readout: np.ndarray,
    spikes: np.ndarray,
    state_after: np.ndarray,
    currents: np.ndarray,
) -> None:
    """The ticks of one layer: fills `spikes` [ticks, neurons], `state_after` [5, neurons], and adds to `currents`.

    Args:
        fed: constant drive, [neurons].
        source: spikes of the layer before, [ticks, before]; no rows for the first layer.
        gather, spread: their weights, [before, rank] and [rank, neurons], or [before, neurons] and no rows.
        mean_before: mean spikes of this layer in the step before, [neurons].
        own_gather, own_spread: weights of recurrence, as above; both without rows if there is none.
        state: synaptic current, membrane, adaptation and threshold base, [neurons] each.
        decay: of the first three, [neurons] each.
        levels: rest, decrement and strength, see `neurons.Threshold`.
        readout: weights to the readout, [neurons, outputs].
        state_after: the four of `state`, and the mean spikes.
        currents: of the readout, [ticks, outputs].
    """
    ticks, neurons = spikes.shape
    index = np.empty(max(neurons, source.shape[1]) + 1, np.int64)
    latent = np.empty(max(spread.shape[0], own_spread.shape[0]), np.float32)
    constant = fed.copy()
    if own_spread.shape[0] > 0:
        own_latent = latent[: own_spread.shape[0]]
        own_latent[:] = _ZERO
        _add_product(mean_before, own_gather, own_latent)
        _add_product(own_latent, own_spread, constant)
    elif own_gather.shape[0] > 0:
        _add_product(mean_before, own_gather, constant)
    drive = np.empty((max(source.shape[0], 1), 1, neurons), np.float32)
    drive[:, 0] = constant
    for tick in range(source.shape[0]):
        count = _find(source[tick], index)
        if spread.shape[0] > 0:
            fed_latent = latent[: spread.shape[0]]
            fed_latent[:] = _ZERO
            _add_rows(index, count, gather, fed_latent)
            _add_product(fed_latent, spread, drive[tick, 0])
        else:
            _add_rows(index, count, gather, drive[tick, 0])
    scan_forward(
        drive,
        state[0].reshape((1, neurons)),
        state[1].reshape((1, neurons)),
        state[2].reshape((1, neurons)),
        state[3].reshape((1, neurons)),
        decay[0],
        decay[1],
        decay[2],
        levels[0],
        levels[1],
        levels[2],
        spikes.reshape((ticks, 1, neurons)),
        state_after[0:1],
        state_after[1:2],
        state_after[2:3],
        state_after[3:4],
        state_after[4:5],
    )
    for tick in range(ticks):
        count = _find(spikes[tick], index)
        _add_rows(index, count, readout, currents[tick])
