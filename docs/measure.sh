#!/usr/bin/env bash
# Makes every figure that the speed page and the README show: docs/measured/*.txt and *.json, docs/_static/speed.svg.
#
#   docs/measure.sh [python]
#
# The Python must have dwconv built from this tree, the demo extra, and whatever other libraries are to be compared with; those
# that are missing are left out, and the text says so.  On a machine with nothing else to do, or the figures mean nothing: it
# refuses to start while another process computes.  Nobody writes a figure into these files by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
others=torch,onnxruntime,openvino,tensorflow,scipy,opencv
folder=docs/measured

busy=$(awk '{ print ($1 > 0.5) }' /proc/loadavg)
[ "$busy" = 0 ] || { echo "this machine is busy: $(cat /proc/loadavg)" >&2; exit 1; }
git diff --quiet HEAD -- dwconv setup.py || { echo "dwconv differs from the commit that the figures would be of" >&2; exit 1; }

bench() {  # file, options: the command as the page shows it, then what it printed
    local file=$1
    shift
    echo "$file" >&2
    rm -f "$folder/$file.json"
    {
        echo "\$ python -m dwconv bench $*"
        # status 1: a library's result differs, and the text says so
        "$python" -m dwconv bench "$@" --json "$folder/$file.json" --force || [ -s "$folder/$file.json" ]
    } > "$folder/$file.txt" 2>&1
}

{
    echo "Commit $(git rev-parse --short=12 HEAD), $(date -u +%Y-%m-%d)"
    echo "$(nproc) CPUs:$(grep -m 1 'model name' /proc/cpuinfo | cut -d: -f2)"
    echo
    echo "\$ python -m pip list"
    "$python" -m pip list 2> /dev/null | grep -Ei "^(numpy|torch|onnxruntime|openvino|tensorflow|scipy|opencv-python\S*) "
    echo
    echo "\$ python -m dwconv info"
    "$python" -m dwconv info
} > "$folder/conditions.txt"

bench forward --against "$others"
bench input_grad --pass input_grad --against "$others"
bench kernel_grad --pass kernel_grad --against "$others"
bench limit --limit
bench threads --workers -1 --against "$others"
bench picture mobilenet_v1 efficientnet convnext --layout channels_last --against "$others" --plot docs/_static/speed.svg
