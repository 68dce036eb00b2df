#!/usr/bin/env bash
# Make .venv of this checkout what constraints.txt says: minutes on a plain image, a second on one that was baked with
# this script. Where a folder `wheelhouse` lies beside it (`make wheelhouse`), nothing is asked of a package index.
#
# Usage: node.sh [PACKAGE...]    PACKAGE: what the cloud's own calls need, such as boto3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp="$(cat constraints.txt pyproject.toml | sha256sum) $*"
if [ "$(cat .venv/.installed 2> /dev/null || true)" != "$stamp" ]; then
  if ! python3.12 -m ensurepip --version > /dev/null 2>&1; then
    cloud-init status --wait > /dev/null || true # the first boot holds the lock of apt
    sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq python3.12-venv
  fi
  test -x .venv/bin/pip || python3.12 -m venv .venv
  if [ -d wheelhouse ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/wheelhouse"
  fi
  .venv/bin/pip install --quiet --no-input -c constraints.txt -e ".[gpu,demo]" "$@"
  echo "$stamp" > .venv/.installed
fi

# torch 2.13.0 of the index is the CUDA build on Linux, and runs on CPU nodes as well. A GPU node that got another one
# stops here, before it is paid for and idle.
if nvidia-smi -L > /dev/null 2>&1; then
  .venv/bin/python -c "import torch; assert torch.cuda.is_available(), torch.__version__"
fi
