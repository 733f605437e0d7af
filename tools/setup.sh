#!/bin/sh
# Makes .venv with everything locked in uv.lock. Run by make; safe to run again.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

if ! python=$(find_python); then
    say "Python 3.11, 3.12 or 3.13 is needed and none was found (python3 is: $(python3 --version 2>&1 || echo missing))."
    say "On Debian 12 or Ubuntu 24.04:  apt-get install python3 python3-venv"
    exit 1
fi

if ! [ -x .venv/bin/python ] || ! fits .venv/bin/python; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            say "python3-venv is missing: installing it"
            apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null
        else
            say "Python's venv module is missing. On Debian or Ubuntu:  sudo apt-get install python3-venv"
            exit 1
        fi
    fi
    "$python" -m venv --clear .venv
fi

[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
VIRTUAL_ENV="$PWD/.venv" UV_PYTHON="$PWD/.venv/bin/python" .venv/bin/uv sync --frozen --inexact --quiet

# py-libp2p depends on trio-typing, whose years-old stubs for trio would hide trio's own types from mypy.
rm -rf .venv/lib/python3*/site-packages/trio-stubs
touch .venv/.synced
