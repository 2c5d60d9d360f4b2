"""On which Linux a library runs, as a wheel's platform tag: python launch/wheel_parts/platform_tag.py LIBRARY

manylinux_2_N is the tag of what needs glibc 2.N and, apart from libraries that every Linux has, nothing (PEP 600). The
one exception here is TensorFlow's own library, which the wheel depends on: it is loaded first. `auditwheel show` finds
the same.
"""

import re
import subprocess
import sys
from pathlib import Path

#: What PEP 600 lets a library expect of a system, of what a C++ library can need.
SYSTEM = frozenset(
    (
        "libc.so.6",
        "libm.so.6",
        "libdl.so.2",
        "librt.so.1",
        "libpthread.so.0",
        "libgcc_s.so.1",
        "libstdc++.so.6",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    )
)
#: What TensorFlow's wheel brings.
TENSORFLOW = frozenset({"libtensorflow_framework.so.2"})
#: glibc -> the newest symbols of libstdc++ that systems with it have: auditwheel's manylinux policies.
LIBSTDCXX = {17: 19, 24: 22, 28: 24, 31: 28, 34: 29, 35: 30, 38: 32, 39: 33}


def needed(library: Path) -> list[str]:
    """The shared libraries that ``library`` names."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", _run("readelf", "--dynamic", "--wide", str(library)))


def newest(library: Path, series: str) -> int:
    """The newest symbol version of a series that ``library`` needs: 34 where that is ``GLIBC_2.34``; 0 for none."""
    versions = re.findall(rf"\b{re.escape(series)}\.(\d+)", _run("objdump", "--dynamic-syms", str(library)))
    return max(map(int, versions), default=0)


def glibc(library: Path) -> int:
    """The oldest glibc 2.N on whose systems ``library`` finds its symbols, those of libstdc++ too."""
    of_glibc, of_libstdcxx = newest(library, "GLIBC_2"), newest(library, "GLIBCXX_3.4")
    enough = [number for number, has in LIBSTDCXX.items() if has >= of_libstdcxx]
    if not enough:
        raise ValueError(f"{library} needs GLIBCXX_3.4.{of_libstdcxx}, newer than what is known here")
    return max(of_glibc, enough[0])


def platform_tag(library: Path, machine: str) -> str:
    """The tag: ``manylinux_2_34_x86_64``, or ``linux_x86_64`` where it needs more than every Linux has."""
    others = set(needed(library)) - SYSTEM - TENSORFLOW
    if others:
        print(f"launch/wheel: note: {library.name} needs {', '.join(sorted(others))}.", file=sys.stderr)
        return f"linux_{machine}"
    return f"manylinux_2_{glibc(library)}_{machine}"


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    import platform

    print(platform_tag(Path(sys.argv[1]), platform.machine()))
