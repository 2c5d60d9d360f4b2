"""Compare the arrays of two files, within the tolerances of tests/distributed."""

from __future__ import annotations

import numpy as np
from script import parser, write

made = parser(__doc__)
made.add_argument("one")
made.add_argument("other")
arguments = made.parse_args()
with np.load(arguments.one) as a, np.load(arguments.other) as b:
    one, other = dict(a), dict(b)
apart, largest = [], 0.0
if one.keys() != other.keys():
    apart.append("the files have different arrays")
for name in one.keys() & other.keys():
    difference = float(np.abs(one[name] - other[name]).max())
    # float16 on the wire rounds; all else agrees to float32 rounding.
    tolerance = 2e-3 if name.startswith("float16") else 1e-5
    relative = 1e-3 if name.endswith("loss") else 0.0
    if not np.allclose(other[name], one[name], atol=tolerance, rtol=relative):
        apart.append(f"{name} by {difference:.1e}")
    if not name.endswith("loss") and not name.startswith("float16"):
        largest = max(largest, difference)
write(arguments.json, {"apart": ", ".join(sorted(apart)), "largest": f"{largest:.1e}"})
