"""What is changed in Horovod's source before it is built, and why.

Horovod 0.28.1 is the last release and older than this TensorFlow. Each patch replaces a text that must be found exactly
once, so that another source is noticed and not built half patched.
"""

from dataclasses import dataclass
from pathlib import Path

VERSION = "0.28.1"


class SourceChanged(Exception):
    """Horovod's source is not the one that a patch was written for."""


@dataclass(frozen=True)
class Patch:
    """One replacement in one file.

    Attributes:
        name: what it does, for messages.
        file: path in the source package.
        old: the text that is replaced.
        new: what stands there afterwards.
        cuda: whether only a build for GPUs needs it.
    """

    name: str
    file: str
    old: str
    new: str
    cuda: bool


PATCHES = (
    # XLA collectives need headers (highwayhash) that TensorFlow's wheels lack since 2.19. Nothing else needs the file.
    Patch(
        name="leave out the XLA collectives",
        file="horovod/tensorflow/CMakeLists.txt",
        old='list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        new="",
        cuda=False,
    ),
    # TensorFlow no longer exports AsGpuStreamValue, so the built library would not load. What it returned is what a
    # method of the stream returns now. The definition needs Stream in full, so it comes after TensorFlow's header.
    Patch(
        name="take the CUDA stream from TensorFlow's stream itself",
        file="horovod/tensorflow/mpi_ops.cc",
        old="""\
// Forward declaration of AsGpuStreamValue
namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream);
} // namespace stream_executor
} // namespace gpu
#if TENSORFLOW_VERSION >= 2011000000
#include "tensorflow/compiler/xla/stream_executor/stream.h"
#else
#include "tensorflow/stream_executor/stream.h"
#endif // TENSORFLOW_VERSION >= 2011000000
""",
        new="""\
#include "tensorflow/compiler/xla/stream_executor/stream.h"
namespace stream_executor {
namespace gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
""",
        cuda=True,
    ),
    # Two things about the link:
    # - TensorFlow's libraries export the CUDA runtime's functions, those of its own CUDA version. Whatever stands first
    #   wins, so Horovod's kernels and the runtime that they were compiled for come before TensorFlow. (Written as an
    #   option, since CMake moves what it knows to be a library to the end.)
    # - CMake would write the folder into the library in which NCCL was found, which is a temporary one. NCCL is found
    #   next to Horovod instead, in site-packages, where tensorflow[and-cuda] puts it.
    Patch(
        name="link the CUDA runtime before TensorFlow, and find NCCL next to Horovod",
        file="horovod/tensorflow/CMakeLists.txt",
        old="target_link_libraries(${TF_TARGET_LIB} ${LINKER_LIBS} ${TF_LINKER_LIBS})\n",
        new="""\
target_link_libraries(${TF_TARGET_LIB} ${LINKER_LIBS} horovod_cuda_kernels "-Wl,${CUDA_cudart_static_LIBRARY}"
                      ${TF_LINKER_LIBS})
set_target_properties(${TF_TARGET_LIB} PROPERTIES BUILD_WITH_INSTALL_RPATH TRUE
                      INSTALL_RPATH "$ORIGIN/../../nvidia/nccl/lib")
""",
        cuda=True,
    ),
)


def apply(source: Path, cuda: bool) -> None:
    """Change the unpacked ``source`` as a build for CPUs or, with ``cuda``, for GPUs needs it.

    Raises:
        SourceChanged: the text of a patch is not there, or more than once. Nothing is changed then.
    """
    texts: dict[Path, str] = {}
    for patch in PATCHES:
        if patch.cuda and not cuda:
            continue
        file = source / patch.file
        if file not in texts:
            if not file.is_file():
                raise SourceChanged(_said(patch, "the file is not there"))
            texts[file] = file.read_text()
        found = texts[file].count(patch.old)
        if found != 1:
            raise SourceChanged(_said(patch, f"the text that it replaces was found {found} times, not once"))
        texts[file] = texts[file].replace(patch.old, patch.new)
    for file, text in texts.items():
        file.write_text(text)


def _said(patch: Patch, what: str) -> str:
    return (
        f"Horovod's source has changed: the patch '{patch.name}' does not fit {patch.file}: {what}. "
        f"launch/horovod/patches.py was written for Horovod {VERSION}."
    )
