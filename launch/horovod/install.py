"""Install Horovod into the environment of the Python that runs this.

    python launch/horovod/install.py --wheels FOLDER [--cuda-home FOLDER]

Takes the wheel from FOLDER, or builds it and keeps it there. Then checks the installed library; a kept wheel that fails
is built again, once. Ends with 1 and says why when there is no sound Horovod in the end.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import build
import check


def step(text: str) -> None:
    """Say what is done now, as launch/setup does."""
    print(f"[setup {time.strftime('%T')}] {text}", file=sys.stderr, flush=True)


def installed(wheels: Path, cuda_home: str | None, again: bool) -> bool:
    """Install a kept wheel or, with ``again`` or where there is none, a new one; whether it was a kept one.

    Raises:
        build.BuildError: there is none and it could not be built, or it does not install.
    """
    kept = None if again else next((wheels / build.key(cuda_home)).glob("horovod-*.whl"), None)
    if kept is None:
        step(f"building Horovod {build.patches.VERSION} for TensorFlow (once per version; 2 to 3 minutes on two cores)")
    wheel = kept or build.build(wheels, cuda_home)
    step(f"installing Horovod from {wheel.parent}")
    command = (*build.PIP, "install", "-qq", "--no-deps", "--force-reinstall", str(wheel))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise build.BuildError(f"{done.stderr.strip()}\n{wheel} does not install")
    return kept is not None


def main() -> int:
    """The command. Returns the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, help="where wheels are kept")
    parser.add_argument("--cuda-home", help="the CUDA toolkit: build for GPUs, with NCCL")
    arguments = parser.parse_args()
    # Ended from outside, the folder that was built in is still removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cuda = arguments.cuda_home is not None
    try:
        was_kept = installed(arguments.wheels, arguments.cuda_home, again=False)
        said = check.all_problems(cuda)
        if said and was_kept:
            step(f"the kept wheel is not sound (Horovod {said[0]}), so it is built again")
            installed(arguments.wheels, arguments.cuda_home, again=True)
            said = check.all_problems(cuda)
    except build.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for text in said:
        print(f"Horovod {text}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
