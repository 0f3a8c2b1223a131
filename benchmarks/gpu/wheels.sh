#!/usr/bin/env bash
# Collect what a machine without network needs beside torch: benchmarks/gpu/wheels.sh [FOLDER]
#
# Wheels for Linux on x86-64 go into FOLDER (default .wheels, which git ignores): the newest tested
# stack (.ci/stack), bitsandbytes with the library of one CUDA version only, and this package.
# PYTHON: a Python with pip and hatchling, default .venv/bin/python. TARGET: Python version of
# that machine, default 3.12. CUDA: version of its torch without the dot, default 130; `all` keeps
# every library (43 MB in place of 2).
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.wheels}
python=${PYTHON:-.venv/bin/python}
target=${TARGET:-3.12}
cuda=${CUDA:-130}

platforms=()
for glibc in 2_34 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

rm -rf "$folder"
mkdir -p "$folder"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --implementation cp --python-version "$target" "${platforms[@]}" --dest "$folder" \
  --requirement benchmarks/gpu/wheels.txt
"$python" -m hatchling build --target wheel --directory "$folder" > /dev/null

if [ "$cuda" != all ]; then
  "$python" - "$folder" "$cuda" << 'PYTHON_END'
import pathlib
import sys
import zipfile

folder, cuda = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("bitsandbytes-*.whl")
keep = ("libbitsandbytes_cpu.so", f"libbitsandbytes_cuda{cuda}.so")
with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(folder / "new", "w", zipfile.ZIP_DEFLATED) as new:
    names = [pathlib.PurePath(name).name for name in old.namelist()]
    if keep[1] not in names:
        sys.exit(f"{wheel.name} has no {keep[1]}: set CUDA to another version, or to all")
    for entry in old.infolist():
        library = pathlib.PurePath(entry.filename)
        if library.suffix != ".so" or library.name in keep:
            new.writestr(entry, old.read(entry))
(folder / "new").replace(wheel)
PYTHON_END
fi
du -sh "$folder"
