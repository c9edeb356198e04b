# Sourced by the other scripts: sets PYTHON to an interpreter that can run mtl_tickets, and goes to the repository root.
#
# With MTL_TICKETS_PYTHON set, that interpreter is used as it is and nothing is installed. Otherwise .venv is made in the
# repository, and filled by pip when setup.cfg, pyproject.toml or constraints.txt have changed since the last time.
# EXTRAS may be set before sourcing, e.g. EXTRAS=dev.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer, with venv, is needed and was not found" \
        "(looked for python3.11, 3.12, 3.13, 3.14 and python3 on PATH; on Debian: apt install python3-venv)." \
        "Set MTL_TICKETS_PYTHON to use an environment of your own." >&2
    return 1
}

if [[ -n "${MTL_TICKETS_PYTHON:-}" ]]; then
    PYTHON="$MTL_TICKETS_PYTHON"
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
else
    if [[ ! -x .venv/bin/python ]]; then
        found="$(find_python)"
        echo "making .venv with $found"
        "$found" -m venv .venv
    fi
    PYTHON="$PWD/.venv/bin/python"
    wanted="$(cat setup.cfg pyproject.toml constraints.txt | "$PYTHON" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    # what the dev extra installs includes what a plain installation does
    if ! grep -qsx "$wanted" .venv/installed-dev && ! { [[ -z "${EXTRAS:-}" ]] && grep -qsx "$wanted" .venv/installed; }; then
        echo "installing into .venv (once; some minutes)"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${EXTRAS:+[$EXTRAS]}"
        echo "$wanted" > ".venv/installed${EXTRAS:+-$EXTRAS}"
    fi
fi
