"""Time an allreduce of the gradient of a NeuMF of the reference sizes; started on every rank, rank 0 writes."""

from __future__ import annotations

from script import parser, row, seconds, take_device, write

arguments = parser(__doc__).parse_args()

from tfrec import distributed  # noqa: E402

tf = take_device(arguments.rehearse)
distributed.init()
hvd = distributed.ranks.horovod()
#: 31.7 million numbers: what ml-20m's shape has.
numbers = 1 << 16 if arguments.rehearse else 31_700_000
rows = []
for dtype in (tf.float32, tf.float16):
    gradient = tf.ones([numbers], dtype)

    @tf.function
    def reduce(gradient: tf.Tensor = gradient) -> tf.Tensor:
        """The sum over the ranks."""
        return tf.cast(hvd.allreduce(gradient, op=hvd.Sum, name=f"time.{gradient.dtype.name}"), tf.float32)

    total = float(reduce()[0])
    if total != hvd.size():
        raise SystemExit(f"The sum of {hvd.size()} ones is {total}.")
    times = seconds(lambda reduce=reduce: reduce()[0].numpy(), 10)
    size_bytes = numbers * dtype.size
    # What each rank sends, of a ring: 2 (N - 1) / N times the bytes.
    gbs = 2 * (hvd.size() - 1) / hvd.size() * size_bytes / times / 1e9
    rows.append(row(f"allreduce of {size_bytes / 2**20:,.1f} MiB, {dtype.name}, {hvd.size()} ranks", times * 1e3, "ms"))
    rows.append(row(f"the same, sent by each rank, {dtype.name}", gbs, "GB/s"))
if hvd.rank() == 0:
    write(arguments.json, {"rows": rows})
