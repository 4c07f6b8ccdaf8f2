#!/usr/bin/env bash
# Build the wheel, and run it without the checkout: the demo with PyTorch, its packed classifier without.
set -euo pipefail
pip install --quiet build
python -m build --outdir dist
wheel=$(realpath "$(ls dist/*.whl)")
work=$(mktemp -d)
cd "$work"
python -m venv full
full/bin/pip install --quiet "$wheel[offline,export]"
full/bin/anomalib-ncd demo --output demo
full/bin/anomalib-ncd pack demo --output parts.zip
python -m venv small
small/bin/pip install --quiet numpy opencv-python-headless pillow "jsonargparse[signatures]" pyyaml matplotlib onnxruntime
small/bin/pip install --quiet --no-deps "$wheel"
small/bin/anomalib-ncd classify parts.zip --images demo/data/test --output results
classes() { sed 's#^[^,]*/test/##' "$1" | cut -d, -f1,2 | sort; }
diff <(classes demo/predictions.csv) <(classes results/predictions.csv)
