#!/usr/bin/env bash
# Use a GPU that is lent for some minutes: what can fail comes first, and what is worth most comes early.
#
#     bash tools/first_gpu.sh        # repeat on the same machine, or on another one with the same folder $TO
#
# A call takes under ten minutes. The first call trains two short runs, and ends if one fails. Then it trains the runs of
# figure 3 of Wang et al. (ICLR 2022), seed by seed and six at a time; beside them it runs the tests that need a GPU. The
# second call measures on a quiet GPU: stacked ConvNets first, then steps, then a trace. Later calls go on with the runs.
# Every piece prints one line. At the end all results are in files of at most 16 MiB in the folder $TO. An unfinished run is
# in them with its checkpoint, from which another machine goes on, if the run fits into one file; else it begins again there.
#
# The machine needs torch and torchvision, and no network. On a machine with a network, prepare two folders beside this clone:
#
#     imbalance data cut --config=cifar_poly --output=cut                                   # 22 MB: the images
#     pip download --only-binary=:all: --python-version=3.12 --no-deps --dest=wheels -c constraints.txt \
#         accelerate ml-collections absl-py pydantic pydantic-core annotated-types typing-inspection filelock safetensors \
#         huggingface-hub scikit-learn scipy joblib threadpoolctl psutil PyYAML pytest pytest-timeout pluggy iniconfig Pygments
#
# Variables: DATA=cut, WHEELS=wheels, WORK=runs (run directories), TO=carried, MINUTES=9, SEEDS=10, JOBS=6, PYTHON=python3,
# OVERRIDES (flags --config.<key>=<value> of all runs; the two short runs have two epochs all the same), ON_CPU=1 (a trial
# without a GPU).
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD started=$(date +%s)
data=${DATA:-cut} wheels=${WHEELS:-wheels} work=${WORK:-runs} to=${TO:-carried} minutes=${MINUTES:-9} seeds=${SEEDS:-10}
jobs=${JOBS:-6} python=${PYTHON:-python3} on_cpu=${ON_CPU:+--on_cpu}
env="${work%/}_env" first="${work%/}_first"  # the packages, and the two short runs, which are no results
read -ra overrides <<< "${OVERRIDES:-}"
short=(--config.trainer.epochs=2)  # the overrides of the two short runs
for flag in "${overrides[@]}"; do [[ $flag == --config.trainer.epochs=* ]] || short+=("$flag"); done
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

say() { echo "[$(($(date +%s) - started)) s] $*"; }
# Minutes until the end of this call; stopped runs have most of the last minute to write their checkpoints.
left() { awk -v total="$minutes" -v spent=$(($(date +%s) - started)) 'BEGIN { m = total - 1 - spent / 60; print (m > 0.05 ? m : 0.05) }'; }

# Install the packages that the machine lacks from the folder of wheels, in an environment that sees those of the machine.
missing() {
    "$python" - << 'END'
from importlib.util import find_spec
names = dict(torch="torch", torchvision="torchvision", accelerate="accelerate", ml_collections="ml-collections", absl="absl-py",
             numpy="numpy", scipy="scipy", pydantic="pydantic", sklearn="scikit-learn", filelock="filelock",
             safetensors="safetensors", pytest="pytest")
print(*(package for module, package in names.items() if not find_spec(module)))
END
}
if [ -x "$env/bin/python" ]; then python=$(realpath -s "$env/bin/python"); fi
need=$(missing)
if [ -n "$need" ]; then
    "$python" -m venv --system-site-packages --without-pip "$env" || exit 1
    site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' > "$site/machine.pth"
    # shellcheck disable=SC2086  # a list of packages
    if ! "$python" -m pip --python "$env/bin/python" install --quiet --no-index --find-links="$wheels" $need; then
        say "install: failed; missing are $need; put their wheels into $wheels"
        exit 1
    fi
    python=$(realpath -s "$env/bin/python")
    [ -z "$(missing)" ] || { say "install: still missing are $(missing)"; exit 1; }
fi
imbalance() { "$python" -m imbalance "$@"; }
say "install: $("$python" -c 'import sys, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {gpu}")'); added: ${need:-nothing}" || exit 1

# Take over what an earlier call has carried away from another machine.
if compgen -G "$to/runs-*-of-*.tar.gz" > /dev/null; then
    say "$(imbalance keep --from="$to" --study=rows --work_dir="$work" --results="$work/results" 2>&1 | tr '\n' ' ')"
fi

# Two short runs show whether anything works, and how fast.
speed() {
    "$python" - "$1" << 'END'
import json, sys
with open(sys.argv[1]) as log:
    result = json.loads(log.read().splitlines()[-1])
with open(result["run_directory"] + "/summary.json") as file:
    summary = json.load(file)
rate, score = summary["step"] / summary["seconds"], summary["score"]
print(f"{summary['step']} steps, {rate:.1f} steps a second on {summary['device']}, {summary['score_name']} {score:.3f}")
END
}
mkdir -p "$work" "$first"
for config in cifar_ce cifar_poly; do
    log="$first/$config.txt"
    if ! imbalance train --config="$config" --config.data_dir="$data" --config.work_dir="$first" \
        "${short[@]}" > "$log" 2>&1; then
        say "first run of $config: failed; $(tail -n 1 "$log") ($log)"
        exit 1
    fi
    say "first run of $config: $(speed "$log")"
done

queue() { imbalance pack --work_dir="$work" --results="$work/results" $on_cpu --minutes="$(left)" "$@" 2>&1; }
rows() { queue --only=rows --seeds="$seeds" --jobs="$jobs" --config.data_dir="$data" "${overrides[@]}"; }
first_call="$work/first_call.done"
if [ -e "$first_call" ]; then
    queue --only=quiet | while read -r line; do say "quiet GPU: $line"; done
fi
rows | while read -r line; do say "runs: $line"; done &
runs=$!
queue --only=gpu | while read -r line; do say "beside the runs: $line"; done
wait "$runs"
touch "$first_call"

imbalance keep --work_dir="$work" --to="$to" | while read -r line; do say "carried away: $line"; done
say "end of this call; $(find "$work" -name summary.json | wc -l) runs have a summary"
