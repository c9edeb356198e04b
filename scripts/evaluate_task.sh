#!/usr/bin/env bash
# A task's score for every seed of a run, and the mean: evaluate_task.sh TASK [RUN] [DATA]
#   TASK  a task of the run, or a task file that names its head
#   RUN   an experiment folder, a run or a model folder; default: the newest under runs/
#   DATA  a csv, tsv, jsonl or parquet file; default: the dev rows of the run
# Further settings for `mtl-tickets evaluate` go through the variable OPTIONS, e.g. OPTIONS="--rule own --json".
if [[ $# -lt 1 || $# -gt 3 || "$1" == -* ]]; then
    sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
# paths are the caller's: make them whole before the change of folder
absolute() { if [[ -e "$1" ]]; then realpath "$1"; else echo "$1"; fi; }
task="$(absolute "$1")"
[[ "$1" == */* || "$1" == *.y*ml ]] || task="$1"
run="${2:+$(absolute "$2")}"
data="${3:+$(absolute "$3")}"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [[ -z "$run" ]]; then
    run="$(ls -td runs/*/ 2>/dev/null | head -n 1)" || true
    [[ -n "$run" ]] || { echo "error: there is no run under $PWD/runs yet: scripts/demo.sh makes one" >&2; exit 2; }
fi
read -ra options <<< "${OPTIONS:-}"
exec "$PYTHON" -m mtl_tickets evaluate "$run" --task "$task" ${data:+--data "$data"} "${options[@]}"
