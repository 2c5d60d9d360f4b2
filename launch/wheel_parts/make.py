"""Build the wheel and the source archive: python launch/wheel_parts/make.py --to FOLDER, as launch/wheel starts it."""

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import archives
import horovod_wheel
from platform_tag import platform_tag

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "tfrec/ops/libtfrec_ops.so"


def hook(name: str, folder: Path, log: Path) -> Path:
    """What setuptools writes into ``folder`` when pip or build asks it to: ``build_wheel`` or ``build_sdist``.

    In a process of its own, since setup.py ends the one that it runs in when a build fails.

    Raises:
        SystemExit: it does not build. The end of ``log`` is printed.
    """
    code = f"import sys, setuptools.build_meta as b; b.{name}(sys.argv[1])"
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
        raise SystemExit(f"launch/wheel: {name} failed. The whole log: {log}")
    suffix = "*.whl" if name == "build_wheel" else "*.tar.gz"
    return next(folder.glob(suffix))


def tagged(wheel: Path) -> Path:
    """``wheel`` under the platform tag that its library has earned."""
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(wheel) as archive:
        library = Path(archive.extract(LIBRARY, temporary))
        tag = f"py3-none-{platform_tag(library, platform.machine())}"
    return archives.retagged(wheel, tag)


def shown(path: Path) -> str:
    """A line for ``path``: its name and size."""
    return f"{path}  {path.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--horovod", type=Path, help="where launch/setup keeps Horovod's wheels")
    parser.add_argument("--cuda-home", help="take the Horovod for GPUs")
    arguments = parser.parse_args()
    started = time.monotonic()
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    to: Path = arguments.to.resolve()
    to.mkdir(parents=True, exist_ok=True)
    (ROOT / "build").mkdir(exist_ok=True)
    # setuptools packs what an earlier build left here, also modules that exist no more.
    for left in (*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*"), *ROOT.glob("tfrec.egg-info")):
        shutil.rmtree(left)
    written = []
    with tempfile.TemporaryDirectory(dir=to, prefix=".wheel.") as temporary:
        work = Path(temporary)
        source = archives.reproducible(hook("build_sdist", work, ROOT / "build" / "sdist.log"), epoch)
        wheel = tagged(hook("build_wheel", work, ROOT / "build" / "wheel.log"))
        made = [wheel, source]
        if arguments.horovod:
            made.append(horovod_wheel.labelled(arguments.horovod, arguments.cuda_home, work))
        for path in made:
            written.append(path.replace(to / path.name))
    with contextlib.suppress(ValueError):
        written = [path.relative_to(Path.cwd()) for path in written]
    print("\n".join(map(shown, written)))
    print(f"written in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
