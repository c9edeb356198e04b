#!/usr/bin/env bash
# Which sharing strategy, and is it really better? Every rule of a study against the dense multi-task encoder.
#   ablate_sharing.sh [STUDY] [OPTIONS of `mtl-tickets study`]
#   STUDY  a study file or the name of a shipped one; default: sharing_playground (no network)
# Stop it and start it again as you like; several terminals may work on one study.
study=sharing_playground
if [[ $# -gt 0 && "$1" != -* ]]; then
    study="$1"
    if [[ -e "$study" ]]; then study="$(realpath "$study")"; fi
    shift
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
exec "$PYTHON" -m mtl_tickets study "$study" "$@"
