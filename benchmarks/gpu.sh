#!/usr/bin/env bash
# The effect of each GPU optimisation alone, into benchmarks/results/gpu (or $OUT): `bash benchmarks/gpu.sh`, in minutes.
# `bash benchmarks/gpu.sh --try` runs these commands on a CPU, with small maps and without a peer; the tests do that.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-benchmarks/results/gpu}"
mkdir -p "$out"
python="${PYTHON:-.venv/bin/python}"
device=cuda net=D infer=512 train=256 size=224 repeats=7 others=yes against="--against torchvision"
if [ "${1:-}" = "--try" ]; then
	device=cpu net=A infer=1 train=2 size=32 repeats=1 others=no against=
fi

# a name, then the arguments of `verydeep benchmark`
measure() {
	local name="$1"
	shift
	echo "$name: benchmark $*" >&2
	"$python" -m verydeep benchmark "$@" --device "$device" --repeats "$repeats" --json --quiet >"$out/$name.json"
}

plain="--precision float32 --layout contiguous"
# shellcheck disable=SC2086
{
	measure infer-plain infer "$net" --batch "$infer" $plain
	measure infer infer "$net" --batch "$infer" $against
	measure dense dense "$net" $([ "$others" = yes ] || echo --size 224)
	measure train-plain train "$net" --batch "$train" --size "$size" $plain
	measure train train "$net" --batch "$train" --size "$size" $against
}
if [ "$others" = yes ]; then
	measure infer-bf16-contiguous infer D --batch "$infer" --precision bf16 --layout contiguous
	measure infer-compiled infer D --batch "$infer" --compile yes
	measure train-bf16-contiguous train D --batch "$train" --precision bf16 --layout contiguous
	measure train-compiled train D --batch "$train" --compile yes
	measure train-lrn train A-LRN --batch "$train"
	measure train-a train A --batch "$train"
	for batch in 1 8 32 128; do measure "infer-batch-$batch" infer D --batch "$batch"; done
fi
"$python" - "$out" <<'END'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    told = json.loads(path.read_text())
    for row in told["rows"]:
        share = row["share_of_peak"]
        print(f"{path.stem:28s} {row['name']:32s} {row['images_per_second']:12.2f} images/s"
              f"{'' if share is None else f', {100 * share:.0f} % of the peak'}")
END
