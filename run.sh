#!/bin/sh
# Sets up .venv beside this file on the first call, then runs. A second call starts at once.
#   ./run.sh demo              a search on digits, from nothing to a registered model
#   ./run.sh test [ARGUMENT]   the tests (arguments go to pytest)
#   ./run.sh COMMAND ...       the same as: nasgraph COMMAND ...
# NASGRAPH_CONSTRAINTS=FILE installs with other constraints; /dev/null: the newest of everything.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$here/.venv
constraints=${NASGRAPH_CONSTRAINTS:-$here/constraints.txt}
case $constraints in /*) ;; *) constraints=$PWD/$constraints ;; esac
[ -r "$constraints" ] || { echo "error: cannot read the constraints file '$constraints'" >&2; exit 1; }

find_python() {
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    echo "error: nasgraph needs Python 3.11 or newer, and none was found. Install one, or set PYTHON to its path." >&2
    exit 1
}

install() {
    find_python
    "$python" -c 'import venv, ensurepip' 2>/dev/null || {
        echo "error: $python lacks the venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
    echo "Setting up $venv (first call only; takes minutes: PyTorch is large) ..." >&2
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"
    (cd -- "$here" && "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        -c "$constraints" -e '.[test]') || { echo "error: the installation failed; call again to resume" >&2; exit 1; }
    echo "$wanted" > "$venv/installed"
    echo "Done." >&2
}

wanted=$({ cat -- "$here/pyproject.toml" "$constraints"; echo "$here"; } | cksum)
[ "$(cat -- "$venv/installed" 2>/dev/null)" = "$wanted" ] && [ -x "$venv/bin/python" ] || install
case ${1-} in
    test) shift; cd -- "$here"; exec "$venv/bin/python" -m pytest "$@" ;;
    *) exec "$venv/bin/python" "$here/cli.py" "$@" ;;
esac
