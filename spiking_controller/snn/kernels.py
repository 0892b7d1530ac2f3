"""Compiled kernels that run all ticks of one control step of a spiking layer in one pass over memory.

The mathematics is that of `neurons.adaptive_lif_step`; the plain PyTorch loop there is the reference that these
kernels are tested against. Arrays are float32 and C-contiguous: `[ticks, batch, neurons]` over a step,
`[batch, neurons]` for a state, `[neurons]` for a parameter. A drive of one tick is held constant over the step.

A row of the batch is worked off whole, all its ticks, while it lies in the fastest cache. The loops over neurons are
short on purpose: with few arrays in each, the compiler can prove them free of overlap and vectorise them.
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
"""Neurons that the backward pass takes through all ticks at a time, so that what it keeps of the ticks fits into the
fastest cache, however wide the layer is."""
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
def _charge(drive, decay_synaptic, decay_membrane, synaptic, membrane, synaptic_out, membrane_out):  # type: ignore[no-untyped-def]
    """Synapse and membrane of one tick, before the spike; [neurons] each."""
    for i in range(drive.shape[0]):
        synaptic_out[i] = decay_synaptic[i] * synaptic[i] + drive[i]
    for i in range(drive.shape[0]):
        membrane_out[i] = decay_membrane[i] * membrane[i] + (_ONE - decay_membrane[i]) * synaptic_out[i]


@njit(**_INLINE)
def _fire(decay_adaptation, levels, mem, ada, low, fired):  # type: ignore[no-untyped-def]
    """Spike, reset and adaptation of one tick; [neurons] each."""
    rest, decrement, strength = levels
    for i in range(fired.shape[0]):
        threshold = low[i] - decrement + strength * ada[i]
        spike = _ONE if mem[i] > threshold else _ZERO
        fired[i] = spike
        mem[i] -= spike * threshold
    for i in range(fired.shape[0]):
        ada[i] = decay_adaptation[i] * ada[i] + fired[i]
        low[i] = rest if fired[i] > _ZERO else low[i] - decrement


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
    rest = np.float32(base_rest)
    decrement = np.float32(base_decrement)
    strength = np.float32(adaptation_strength)
    for row in range(batch):
        syn, mem = synaptic_out[row], membrane_out[row]
        ada, low = adaptation_out[row], base_out[row]
        syn[:] = synaptic_current[row]
        mem[:] = membrane[row]
        ada[:] = adaptation[row]
        low[:] = base[row]
        mean = mean_spikes[row]
        mean[:] = _ZERO
        for tick in range(ticks):
            _charge(drive[0 if constant else tick, row], decay_synaptic, decay_membrane, syn, mem, syn, mem)
            fired = spikes[tick, row]
            _fire(decay_adaptation, (rest, decrement, strength), mem, ada, low, fired)
            for i in range(neurons):
                mean[i] += share * fired[i]


@njit(**_INLINE)
def _fire_again(  # type: ignore[no-untyped-def]
    decay_adaptation, levels, surrogate, after, trace, trace_after, low, fired, above
):
    """`_fire` in the backward pass, which also leaves the surrogate derivative in `above`; [neurons] each."""
    rest, decrement, strength = levels
    for i in range(fired.shape[0]):
        threshold = low[i] - decrement + strength * trace[i]
        above[i] = after[i] - threshold
        fired[i] = threshold
    for i in range(fired.shape[0]):
        spike = _ONE if above[i] > _ZERO else _ZERO
        after[i] -= spike * fired[i]
        fired[i] = spike
    for i in range(fired.shape[0]):
        trace_after[i] = decay_adaptation[i] * trace[i] + fired[i]
    for i in range(fired.shape[0]):
        low[i] = rest if fired[i] > _ZERO else low[i] - decrement
    _apply_surrogate(above, surrogate)


@njit(**_INLINE)
def _back_through_tick(  # type: ignore[no-untyped-def]
    g_spikes, g_mean, share, g_above, traces, decays, strength, g_state, learns_decay, g_decays, g_drive, adds
):
    """The way back through one tick; [neurons] each. `adds` to the gradient of the drive instead of overwriting it."""
    neurons = g_spikes.shape[0]
    current_before, current, before, trace = traces
    decay_synaptic, decay_membrane, decay_adaptation = decays
    g_syn, g_mem, g_ada = g_state
    grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation = g_decays
    for i in range(neurons):
        g_above[i] *= g_spikes[i] + share * g_mean[i] + g_ada[i]
    if learns_decay:
        for i in range(neurons):
            grad_decay_adaptation[i] += g_ada[i] * trace[i]
    for i in range(neurons):
        g_ada[i] = decay_adaptation[i] * g_ada[i] - strength * g_above[i]
    for i in range(neurons):
        g_mem[i] += g_above[i]
    if learns_decay:
        for i in range(neurons):
            grad_decay_membrane[i] += g_mem[i] * (before[i] - current[i])
    for i in range(neurons):
        g_syn[i] += (_ONE - decay_membrane[i]) * g_mem[i]
    for i in range(neurons):
        g_mem[i] *= decay_membrane[i]
    if adds:
        for i in range(neurons):
            g_drive[i] += g_syn[i]
    else:
        for i in range(neurons):
            g_drive[i] = g_syn[i]
    if learns_decay:
        for i in range(neurons):
            grad_decay_synaptic[i] += g_syn[i] * current_before[i]
    for i in range(neurons):
        g_syn[i] *= decay_synaptic[i]


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
    rest = np.float32(base_rest)
    decrement = np.float32(base_decrement)
    strength = np.float32(adaptation_strength)
    all_syn = np.empty((ticks + 1, _BLOCK), np.float32)
    all_mem = np.empty((ticks + 1, _BLOCK), np.float32)
    all_ada = np.empty((ticks + 1, _BLOCK), np.float32)
    all_slope = np.empty((ticks, _BLOCK), np.float32)
    all_low = np.empty(_BLOCK, np.float32)
    all_fired = np.empty(_BLOCK, np.float32)
    for row in range(batch):
        for first in range(0, neurons, _BLOCK):
            block = slice(first, min(first + _BLOCK, neurons))
            size = block.stop - block.start
            syn, mem, ada, slope = all_syn[:, :size], all_mem[:, :size], all_ada[:, :size], all_slope[:, :size]
            low, fired = all_low[:size], all_fired[:size]
            decays = decay_synaptic[block], decay_membrane[block], decay_adaptation[block]
            g_decays = grad_decay_synaptic[block], grad_decay_membrane[block], grad_decay_adaptation[block]
            syn[0, :] = synaptic_current[row, block]
            mem[0, :] = membrane[row, block]
            ada[0, :] = adaptation[row, block]
            low[:] = base[row, block]
            for tick in range(ticks):
                after, above = mem[tick + 1], slope[tick]
                now = drive[0 if constant else tick, row, block]
                _charge(now, decays[0], decays[1], syn[tick], mem[tick], syn[tick + 1], after)
                _fire_again(
                    decays[2],
                    (rest, decrement, strength),
                    surrogate,
                    after,
                    ada[tick],
                    ada[tick + 1],
                    low,
                    fired,
                    above,
                )
            g_state = grad_synaptic[row, block], grad_membrane[row, block], grad_adaptation[row, block]
            g_mean = grad_mean_spikes[row, block]
            for back in range(ticks):
                tick = ticks - 1 - back
                _back_through_tick(
                    grad_spikes[tick, row, block],
                    g_mean,
                    share,
                    slope[tick],
                    (syn[tick], syn[tick + 1], mem[tick], ada[tick]),
                    decays,
                    strength,
                    g_state,
                    learns_decay,
                    g_decays,
                    grad_drive[0 if constant else tick, row, block],
                    constant and back > 0,
                )


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
    rest = np.float32(base_rest)
    decrement = np.float32(base_decrement)
    strength = np.float32(adaptation_strength)
    now = np.empty(neurons, np.float32)
    index = np.empty(neurons + 1, np.int64)
    for row in range(batch):
        syn, mem = synaptic_out[row], membrane_out[row]
        ada, low = adaptation_out[row], base_out[row]
        syn[:] = synaptic_current[row]
        mem[:] = membrane[row]
        ada[:] = adaptation[row]
        low[:] = base[row]
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
            _charge(now, decay_synaptic, decay_membrane, syn, mem, syn, mem)
            _fire(decay_adaptation, (rest, decrement, strength), mem, ada, low, spikes[tick + 1, row])


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
    rest = np.float32(base_rest)
    decrement = np.float32(base_decrement)
    strength = np.float32(adaptation_strength)
    syn = np.empty((ticks + 1, neurons), np.float32)
    mem = np.empty((ticks + 1, neurons), np.float32)
    ada = np.empty((ticks + 1, neurons), np.float32)
    slope = np.empty((ticks, neurons), np.float32)
    low = np.empty(neurons, np.float32)
    fired = np.empty(neurons, np.float32)
    g_spikes = np.empty(neurons, np.float32)
    g_latent = np.empty(spread.shape[0], np.float32)
    index = np.empty(neurons + 1, np.int64)
    for row in range(batch):
        syn[0] = synaptic_current[row]
        mem[0] = membrane[row]
        ada[0] = adaptation[row]
        low[:] = base[row]
        for tick in range(ticks):
            after, above = mem[tick + 1], slope[tick]
            _charge(drive[tick, row], decay_synaptic, decay_membrane, syn[tick], mem[tick], syn[tick + 1], after)
            _fire_again(
                decay_adaptation,
                (rest, decrement, strength),
                surrogate,
                after,
                ada[tick],
                ada[tick + 1],
                low,
                fired,
                above,
            )
        g_syn, g_mem, g_ada = grad_synaptic[row], grad_membrane[row], grad_adaptation[row]
        g_fed_back = grad_fed_back[row]
        for back in range(ticks):
            tick = ticks - 1 - back
            direct, g_drive = grad_spikes[tick, row], grad_drive[tick, row]
            for i in range(neurons):
                g_spikes[i] = direct[i] + g_fed_back[i]
            _back_through_tick(
                g_spikes,
                grad_mean_spikes[row],
                share,
                slope[tick],
                (syn[tick], syn[tick + 1], mem[tick], ada[tick]),
                (decay_synaptic, decay_membrane, decay_adaptation),
                strength,
                (g_syn, g_mem, g_ada),
                learns,
                (grad_decay_synaptic, grad_decay_membrane, grad_decay_adaptation),
                g_drive,
                False,
            )
            g_fed_back[:] = _ZERO
            count = _find(spikes[tick, row], index) if learns else 0
            if spread.shape[0] > 0:
                _dot_rows(spread, g_drive, g_latent)
                _add_product(g_latent, gathered, g_fed_back)
                _add_to_rows(index, count, g_latent, grad_gather)
            else:
                _add_product(g_drive, gathered, g_fed_back)
                _add_to_rows(index, count, g_drive, grad_gather)


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
    share = np.float32(1.0 / ticks)
    rest, decrement, strength = np.float32(levels[0]), np.float32(levels[1]), np.float32(levels[2])
    syn, mem, ada, low, mean = state_after[0], state_after[1], state_after[2], state_after[3], state_after[4]
    syn[:], mem[:], ada[:], low[:] = state[0], state[1], state[2], state[3]
    mean[:] = _ZERO
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
    now = constant.copy()
    for tick in range(ticks):
        if source.shape[0] > 0:
            now[:] = constant
            count = _find(source[tick], index)
            if spread.shape[0] > 0:
                fed_latent = latent[: spread.shape[0]]
                fed_latent[:] = _ZERO
                _add_rows(index, count, gather, fed_latent)
                _add_product(fed_latent, spread, now)
            else:
                _add_rows(index, count, gather, now)
        fired = spikes[tick]
        _charge(now, decay[0], decay[1], syn, mem, syn, mem)
        _fire(decay[2], (rest, decrement, strength), mem, ada, low, fired)
        for i in range(neurons):
            mean[i] += share * fired[i]
        count = _find(fired, index)
        _add_rows(index, count, readout, currents[tick])
