#!/bin/sh
# Runs the Python tests in a virtual environment of their own.
#
#   run.sh [VENV_DIR [TEST_MODULE…]]
#
# VENV_DIR is made when missing (default: target/python-venv under the repository root) and
# kept: a second run with the same requirements needs no network. Without modules it runs what
# needs no gateway. Exit code: 0 all passed, 1 a test failed, 2 the environment is not usable.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 2
root=$(CDPATH='' cd -- "$here/../.." && pwd) || exit 2
venv=${1:-$root/target/python-venv}
[ $# -gt 0 ] && shift
[ $# -eq 0 ] && set -- test_vectors test_streams
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "run.sh: $python not found; on Debian: apt-get install python3 python3-venv" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "run.sh: Python 3.11 or newer is needed, found $("$python" -V 2>&1)" >&2
    exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "run.sh: the venv module is missing; on Debian: apt-get install python3-venv" >&2
    exit 2
fi

# A directory without a working interpreter is the rest of an interrupted run, or of a removed Python.
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    "$python" -m venv --clear "$venv" || exit 2
fi
# The copy is written last, so an interrupted installation is done again.
stamp=$venv/installed-requirements.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$here/requirements.txt" || exit 2
    cp "$here/requirements.txt" "$stamp" || exit 2
fi

# -B: a test run leaves no __pycache__ in the source tree.
cd "$here" && exec "$venv/bin/python" -B -m unittest -v "$@"
