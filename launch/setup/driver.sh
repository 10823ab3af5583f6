#!/usr/bin/env bash
# driver.sh: prints the CUDA that the NVIDIA driver here is for, such as 12.6; nothing where there is none.
set -euo pipefail

# By the driver's own library, which also Jetson and WSL have.
of_library() {
  python3 -c 'if True:
    import ctypes, sys
    version = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        sys.exit(1)
    if failed or version.value <= 0:
        sys.exit(1)
    print(f"{version.value // 1000}.{version.value % 1000 // 10}")'
}

of_nvidia_smi() { nvidia-smi 2>/dev/null | sed -nE 's/.*CUDA Version: *([0-9]+\.[0-9]+).*/\1/p' | head -n 1; }

of_library || of_nvidia_smi || true
