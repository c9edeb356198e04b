#!/usr/bin/env bash
# The main job on the embedded default, from a bare checkout: installs, pre-trains a tiny encoder, runs the experiment.
# A stopped demo goes on where it was; a finished one shows its table again. Arguments go to `mtl-tickets run`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
exec "$PYTHON" -m mtl_tickets run task_configs/experiments/playground.yaml --resume "$@"
