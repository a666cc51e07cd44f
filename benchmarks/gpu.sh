#!/usr/bin/env bash
# What one GPU can tell, in under 9 minutes and without a network: doctor, a small study on the phantom in float32 and
# in bfloat16, parity in float64 and float32, and the speed of training steps.
#
#   bash benchmarks/gpu.sh                        everything goes below results/gpu
#   OUT=/somewhere bash benchmarks/gpu.sh         or below there
#   DEVICE=cpu MODELS=cnn FRAMEWORKS="torch keras-tensorflow" bash benchmarks/gpu.sh       a try without a GPU
#
# PYTHON: the interpreter (default: .venv/bin/python, else python3). PYTHON_TORCH, PYTHON_KERAS: those of a framework
# that is installed apart. Frameworks that do not see the device are left out, and doctor.log says why.
# Each step has a time limit, so that one that hangs does not cost the others. Exit code 0 only if all passed.
# Research only, not a medical device; the pictures are drawn.
set -u
cd "$(dirname "$0")/.." || exit 2

OUT=${OUT:-results/gpu}
DEVICE=${DEVICE:-cuda}
MODELS=${MODELS:-cnn densenet121 convnext_tiny unet}
WORKERS=${WORKERS:-4}
PACE=${PACE:-1} # times as long a limit, for a slow machine
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONUNBUFFERED=1
[ -z "${PYTHON_TORCH:-}" ] || export STROKE_PYTHON_TORCH="$PYTHON_TORCH"
[ -z "${PYTHON_KERAS:-}" ] || export STROKE_PYTHON_KERAS="$PYTHON_KERAS"

mkdir -p "$OUT" || exit 2
# Only what an earlier call of this script made: a finished run would be kept, and nothing be measured
rm -rf "$OUT"/study-float32 "$OUT"/study-bfloat16 "$OUT"/parity "$OUT"/speed "$OUT"/*.log "$OUT"/summary.txt "$OUT"/gpu.tar.gz
: > "$OUT/summary.txt"

say() { echo "$*" | tee -a "$OUT/summary.txt"; }

# --- what is missing, at once ---
missing=$("$PYTHON" - <<'PY'
import importlib.util, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    print(f"Python 3.11 to 3.13 (this is {sys.version.split()[0]})")
needed = dict(numpy="numpy", pandas="pandas", scipy="scipy", sklearn="scikit-learn", cv2="opencv-python-headless",
              PIL="pillow", pydicom="pydicom", matplotlib="matplotlib", safetensors="safetensors",
              huggingface_hub="huggingface-hub", jinja2="jinja2", markupsafe="markupsafe", rich="rich", psutil="psutil")
print(*(name for module, name in needed.items() if importlib.util.find_spec(module) is None))
PY
) || { say "$PYTHON does not run; name an interpreter with PYTHON=/path/to/python"; exit 2; }
missing=$(echo $missing)
if [ -n "$missing" ]; then
	say "missing for $PYTHON: $missing"
	say "install them (versions in common/requirements.txt) or name another interpreter with PYTHON=/path/to/python"
	exit 2
fi

# --- the steps ---
failures=0
# step NAME SECONDS COMMAND...: runs it with a time limit, its words to NAME.log, its outcome to the summary.
# SIGINT first: compare.py then ends its workers and keeps what is finished.
step() {
	local name=$1 limit=$(($2 * PACE)) began=$SECONDS code
	shift 2
	echo "== $name (at most $limit s): $*"
	timeout -s INT -k 15 "$limit" "$@" < /dev/null > "$OUT/$name.log" 2>&1
	code=$?
	case $code in
		0) outcome=passed ;;
		124 | 137) outcome="stopped after $limit s" ;;
		*) outcome="failed with exit code $code: $(grep -v '^[[:space:]]*$' "$OUT/$name.log" | tail -n 1 | cut -c 1-200)" ;;
	esac
	[ $code -eq 0 ] || failures=$((failures + 1))
	say "$(printf '%-16s %4d s  %s' "$name" $((SECONDS - began)) "$outcome")"
	return $code
}

say "device $DEVICE; models $MODELS; $(date -u +%Y-%m-%dT%H:%MZ); research only, not a medical device; drawn pictures"
step doctor 60 "$PYTHON" compare.py doctor
seeing() { grep -Eq "^$1 .*, device $DEVICE\$" "$OUT/doctor.log"; }
if [ -z "${FRAMEWORKS:-}" ]; then
	for name in torch keras-jax keras-tensorflow; do
		if seeing "$name"; then FRAMEWORKS="${FRAMEWORKS:-} $name"; else say "$name left out: it does not see $DEVICE (doctor.log)"; fi
	done
fi
case " ${FRAMEWORKS:-} " in
	*" torch "*) ;;
	*) say "torch does not see $DEVICE; nothing can be compared"; cat "$OUT/doctor.log"; exit 1 ;;
esac
others=$(echo " $FRAMEWORKS " | sed 's/ torch / /')

# A light model of each kind of task, one run at a time, so that nothing disturbs the clocks
STUDY_MODELS=$(for name in cnn unet; do case " $MODELS " in *" $name "*) echo $name ;; esac; done)
for precision in float32 bfloat16; do
	[ -n "$STUDY_MODELS" ] || break
	limit=$([ $precision = float32 ] && echo 120 || echo 80)
	step study-$precision "$limit" "$PYTHON" compare.py study --profile quick --patients 24 --models $STUDY_MODELS \
		--frameworks $FRAMEWORKS --seeds 1 --repeats 0 --epochs 2 --device "$DEVICE" --precision $precision \
		--out "$OUT/study-$precision"
done
if [ -n "$(echo $others)" ]; then
	for precision in float64 float32; do
		limit=$([ $precision = float64 ] && echo 110 || echo 70)
		step parity-$precision "$limit" "$PYTHON" compare.py parity --profile quick --steps 3 --models $MODELS \
			--frameworks $others --precision $precision --device "$DEVICE" --workers "$WORKERS" --out "$OUT/parity"
	done
fi
step speed 80 "$PYTHON" -m benchmarks steps --quick --device "$DEVICE" --models $MODELS --frameworks $FRAMEWORKS \
	--out "$OUT/speed"

# --- did it run where it says? ---
"$PYTHON" - "$OUT" "$DEVICE" > "$OUT/record.log" 2>&1 <<'PY'
import json, sys
from pathlib import Path

out, device = Path(sys.argv[1]), sys.argv[2]
faults, found = [], sorted(out.glob("study-*/runs/**/run.json"))
print(f"{'run':48} {'precision':9} {'device':6} {'first step s':>12} {'images/s':>9} {'device MiB':>10}  tf32")
for path in found:
    run = json.loads(path.read_text())
    name = str(path.parent.relative_to(out)).replace("/runs/", " ").rsplit("/", 2)[0].split(" ", 1)[-1]
    if run["status"] != "complete":
        faults.append(f"{name}: {run['reason']}")
        continue
    timings, peak = run["timings"], run["memory"]["peak_device_mib"]
    rate, first = (timings[key] for key in ("steady_images_per_second", "first_step_seconds"))
    cells = [f"{value:{width}.1f}" if value is not None else "-".rjust(width) for value, width in ((first, 12), (rate, 9), (peak, 10))]
    print(f"{name:48} {run['precision']:9} {run['device']:6} {' '.join(cells)}  {run['environment'].get('tf32', '?')}")
    if run["device"] != device:
        faults.append(f"{name} ran on {run['device']}")
    if device == "cuda" and not peak:
        faults.append(f"{name} has no peak of device memory")
    if run["environment"].get("tf32") != "off":
        faults.append(f"{name} does not say that TF32 was off")
print(*(f"FAULT {fault}" for fault in faults), sep="\n")
sys.exit(bool(faults) or not found)
PY
record=$?
[ $record -eq 0 ] || failures=$((failures + 1))
cat "$OUT/record.log" >> "$OUT/summary.txt"
say "$([ $failures -eq 0 ] && echo "all passed" || echo "$failures failed") in $SECONDS s"
tar -czf "$OUT/gpu.tar.gz" --exclude=cache --exclude='*.safetensors' --exclude=gpu.tar.gz -C "$OUT" . 2> /dev/null
echo
cat "$OUT/summary.txt"
[ $failures -eq 0 ]
