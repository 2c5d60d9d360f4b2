"""The patched Horovod as the version that tfrec's extra asks for.

PyPI's Horovod 0.28.1 does not compile with this TensorFlow. Were the extra to ask for 0.28.1, pip would try for minutes
where the patched wheel is not offered. A local version can come from nowhere else: pip says at once that it is missing.
"""

import shutil
import sys
from pathlib import Path

import archives

ROOT = Path(__file__).resolve().parents[2]
#: What stands behind Horovod's version, as in setup.cfg.
LABEL = "tfrec"


def labelled(wheels: Path, cuda_home: str | None, folder: Path) -> Path:
    """The wheel that launch/setup has built for this environment, with the label, in ``folder``.

    Args:
        wheels: where launch/setup keeps them.
        cuda_home: the CUDA toolkit of a build for GPUs; None: for processors.
        folder: where to write.
    """
    sys.path.insert(0, str(ROOT / "launch" / "horovod"))
    import build

    kept = next((wheels / build.key(cuda_home)).glob("horovod-*.whl"), None)
    if kept is None:
        raise SystemExit(f"launch/wheel: {wheels} has no Horovod for this environment. Run launch/setup --force.")
    return archives.relabelled(Path(shutil.copy2(kept, folder)), f"{build.patches.VERSION}+{LABEL}")
