"""Random numbers and permutations as functions of a counter, computed on the device where they are needed.

Nothing is stored and nothing depends on what was drawn before: number ``n`` of an epoch is the same whichever rank
asks for it, in whichever order, before or after a restart. 32-bit arithmetic in int64 tensors, since TensorFlow has
GPU kernels for int64 throughout.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

#: A Python integer or an int64 tensor.
Integer: TypeAlias = Any

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
#: Feistel rounds, in pairs. Two pairs suffice on a large domain with ideal round functions (Luby and Rackoff, 1988),
#: and four leave room for ours. Domains below 64 elements get twelve: there a chi-square test over all orders of 5 or
#: 6 elements still fails after six pairs, and finds nothing after eight.
_PAIRS, _PAIRS_SMALL, _SMALL = 4, 12, 64


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A bijection of ``[0, 2^32)`` in which every input bit flips about half of the output bits.

    Two rounds of xor-shift and multiplication, with the constants that Wellons found by search ("lowbias32", 2018,
    bias .17).
    """
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    x = tf.bitwise.bitwise_and(xor(x, shift(x, tf.constant(16, tf.int64))) * 0x7FEB352D, _MASK)
    x = tf.bitwise.bitwise_and(xor(x, shift(x, tf.constant(15, tf.int64))) * 0x846CA68B, _MASK)
    return xor(x, shift(x, tf.constant(16, tf.int64)))


def key(*parts: Integer) -> tf.Tensor:
    """A 32-bit key, int64, from integers in ``[0, 2^63)``; tensors among them are combined element by element."""
    found = tf.constant(_GOLDEN, tf.int64)
    for part in parts:
        part = tf.cast(part, tf.int64)
        for half in (tf.bitwise.bitwise_and(part, _MASK), tf.bitwise.right_shift(part, tf.constant(32, tf.int64))):
            found = _mix(tf.bitwise.bitwise_and(_mix(found) + half + _GOLDEN, _MASK))
    return found


def uniform(counter: tf.Tensor, bound: Integer, key: tf.Tensor) -> tf.Tensor:
    """Independent draws from ``[0, bound)``, one for each counter.

    Args:
        counter: int64 of any shape, from 0.
        bound: int64, in ``[1, 2^31)``, of a shape that broadcasts. A value's probability is off by at most
            ``bound / 2^32`` of itself.
        key: see `key`.

    Returns:
        int64 of the broadcast shape.
    """
    low = tf.bitwise.bitwise_and(counter, _MASK)
    high = tf.bitwise.right_shift(counter, tf.constant(32, tf.int64))
    # Two keyed passes: with one, the draws of two keys would be the same table read in another order.
    bits = _mix(tf.bitwise.bitwise_xor(low, key))
    bits = _mix(tf.bitwise.bitwise_and(bits + _mix(tf.bitwise.bitwise_xor(key, _GOLDEN)) + high, _MASK))
    return tf.bitwise.right_shift(bits * tf.cast(bound, tf.int64), tf.constant(32, tf.int64))


def permute(index: tf.Tensor, size: Integer, key: tf.Tensor) -> tf.Tensor:
    """Where a pseudo-random permutation of ``[0, size)`` takes ``index``.

    A Feistel network over pairs ``(left, right)`` in ``[0, a) x [0, b)``, ``a b >= size``, walked until it is back in
    ``[0, size)`` (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). ``a`` and ``b`` are next to
    ``sqrt(size)``, so few elements walk twice.

    Args:
        index: int64 of any shape, in ``[0, size)``.
        size: int64, in ``[1, 2^60)``, of a shape that broadcasts: each element may have a permutation of its own.
        key: see `key`; of a shape that broadcasts.

    Returns:
        int64 of the shape of ``index``.
    """
    index = tf.convert_to_tensor(index, tf.int64)
    shape = tf.shape(index)
    # Where the size is known here, a GPU need not be asked for it.
    pairs = (_PAIRS_SMALL if size < _SMALL else _PAIRS) if isinstance(size, int) else None
    size = tf.reshape(tf.broadcast_to(tf.cast(size, tf.int64), shape), [-1])
    key = tf.reshape(tf.broadcast_to(key, shape), [-1])
    found = _feistel(tf.reshape(index, [-1]), size, key, pairs)

    def walk(outside: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Only the few that are outside walk on: about one in sqrt(size).
        again = _feistel(tf.gather(found, outside), tf.gather(size, outside), tf.gather(key, outside), pairs)
        found = tf.tensor_scatter_nd_update(found, outside[:, None], again)
        return tf.gather(outside, tf.where(again >= tf.gather(size, outside))[:, 0]), found

    _, found = tf.while_loop(
        lambda outside, _: tf.size(outside) > 0,
        walk,
        (tf.where(found >= size)[:, 0], found),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None])),
    )
    return tf.reshape(found, shape)


def _feistel(x: tf.Tensor, size: tf.Tensor, key: tf.Tensor, pairs: int | None) -> tf.Tensor:
    """A permutation of ``[0, a b)``, element by element; ``pairs`` of rounds, or as many as the smallest size needs."""
    a = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(size, tf.float64))), tf.int64)
    b = (size + a - 1) // a
    small = size < _SMALL
    if pairs is None:
        pairs = tf.where(tf.reduce_any(small), _PAIRS_SMALL, _PAIRS)
    left = x // b

    def pair(i: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        round_key = _mix(tf.bitwise.bitwise_and(key + tf.cast(i + 1, tf.int64) * _GOLDEN, _MASK))
        new_left = _add(left, _hash(right, a, round_key), a)
        new_right = _add(right, _hash(new_left, b, tf.bitwise.bitwise_xor(round_key, _GOLDEN)), b)
        # An element's number of rounds depends on its own size alone, not on the others in the call.
        active = small | (i < _PAIRS)
        return i + 1, tf.where(active, new_left, left), tf.where(active, new_right, right)

    _, left, right = tf.while_loop(lambda i, *_: i < pairs, pair, (tf.constant(0), left, x - left * b))
    return left * b + right


def _hash(x: tf.Tensor, bound: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """From ``[0, 2^32)`` to ``[0, bound)``; larger ``x`` are folded."""
    folded = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_and(x, _MASK), key)
    return tf.bitwise.right_shift(_mix(folded) * bound, tf.constant(32, tf.int64))


def _add(x: tf.Tensor, y: tf.Tensor, modulus: tf.Tensor) -> tf.Tensor:
    total = x + y
    return tf.where(total >= modulus, total - modulus, total)
