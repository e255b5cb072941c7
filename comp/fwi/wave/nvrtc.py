"""CUDA kernels compiled at run time from a source file, launched on torch's streams.

NVRTC comes with torch's CUDA build, its Python bindings too from torch 2.10 on; no compiler is
needed. A function is compiled once per process, device type and set of definitions (0.3 s).
"""

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from comp.core.errors import InputError

try:
    from cuda.bindings import driver, nvrtc
except ImportError:  # said when it is needed: without a GPU it never is
    driver = nvrtc = None


class Launch:
    """A kernel with its arguments; call it to enqueue it on the stream that was current at first.

    Arguments are packed once: doing that anew for each of a thousand launches would cost more than
    a small launch runs. In between, `launch[i] = value` changes one, an int or a memory address.
    """

    def __init__(
        self,
        function: Any,
        blocks: tuple[int, int, int],
        threads: int,
        arguments: Sequence[torch.Tensor | int | None],
        shared: int = 0,
    ) -> None:
        """
        Args:
            function: from `load`.
            blocks: the grid.
            threads: of a block.
            arguments: tensors, which the caller keeps alive, None for a null pointer, ints.
            shared: bytes of shared memory of a block beside what the kernel declares.
        """
        if shared:
            _allow_shared(function, shared)
        stream = driver.CUstream(torch.cuda.current_stream().cuda_stream)
        self._call = function, *blocks, threads, 1, 1, shared, stream
        self._values = [
            ctypes.c_int(a)
            if isinstance(a, int)
            else ctypes.c_void_p(None if a is None else a.data_ptr())
            for a in arguments
        ]
        addresses = map(ctypes.addressof, self._values)
        self._packed = (ctypes.c_void_p * len(self._values))(*addresses)

    def __setitem__(self, position: int, value: int) -> None:
        self._values[position].value = value

    def __call__(self) -> None:
        _checked(driver.cuLaunchKernel(*self._call, ctypes.addressof(self._packed), 0))


def _allow_shared(function: Any, size: int) -> None:
    """Let a kernel's blocks have so many bytes of shared memory beside what it declares."""
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, size))


def active_clusters(function: Any, blocks: int, threads: int, shared: int) -> int:
    """How many clusters of so many blocks the current device runs at a time."""
    _allow_shared(function, shared)
    size = driver.CUlaunchAttribute()
    size.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    size.value.clusterDim.x, size.value.clusterDim.y, size.value.clusterDim.z = blocks, 1, 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.attrs, config.numAttrs = shared, [size], 1
    return _checked(driver.cuOccupancyMaxActiveClusters(function, config))


def load(source: Path, name: str, definitions: Mapping[str, str]) -> Any:
    """The kernel `name` of a CUDA source file, compiled for torch's current device.

    Raises:
        InputError: the Python bindings of CUDA are not installed.
        RuntimeError: CUDA's own message, such as that of the compiler.
    """
    if driver is None:
        major = (torch.version.cuda or "12").partition(".")[0]
        raise InputError(
            "CUDA kernels: the package cuda-bindings is missing; "
            f"pip install 'cuda-bindings=={major}.*'"
        )
    torch.cuda.current_stream().query()  # makes the context that the module is loaded into
    device, capability = torch.cuda.current_device(), torch.cuda.get_device_capability()
    module = _module(source, device, capability, tuple(sorted(definitions.items())))
    return _checked(driver.cuModuleGetFunction(module, name.encode()))


@cache
def _module(
    source: Path, _: int, capability: tuple[int, int], definitions: tuple[tuple[str, str], ...]
) -> Any:
    """The loaded module of `source`, one per device."""
    return _checked(driver.cuModuleLoadData(compile_source(source, capability, definitions)))


def compile_source(
    source: Path, capability: tuple[int, int], definitions: Sequence[tuple[str, str]]
) -> bytes:
    """Machine code of `source` for a device of this compute capability."""
    text = source.read_text(encoding="utf-8").encode()
    program = _checked(nvrtc.nvrtcCreateProgram(text, source.name.encode(), 0, [], []))
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}".encode()]
    options += [f"-D{name}={value}".encode() for name, value in definitions]
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if failed:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"{source}: {log.decode().strip()}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code


def _checked(answer: tuple) -> Any:
    """What a CUDA call returned beside its status; RuntimeError where that is not success."""
    status, *values = answer
    if status:
        raise RuntimeError(f"CUDA: {status.name} ({int(status)})")
    return values[0] if values else None
