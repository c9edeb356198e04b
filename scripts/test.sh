#!/usr/bin/env bash
# Style, types and tests, offline. Arguments go to pytest.
EXTRAS=dev
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# the tests' workers share the cores: one thread each
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# a file to a worker: what its tests share is made once
exec "$PYTHON" -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile "$@"
