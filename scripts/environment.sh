# Sourced by the other scripts: goes to the root of the repository and makes the virtual environment there.
#
#   environment conf/requirements.txt        what the server needs
#   environment conf/requirements-dev.txt    the same, and what its checks and tests need
#
# Its messages go to standard error. It does nothing if a stamp in .venv shows that everything is installed.
# shellcheck shell=bash

called_from=$PWD
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
{ : <&0; } 2>/dev/null || exec </dev/null # a closed standard input would be given to the first file that is opened

# Not bin/activate: it contains the directory's path, which would be wrong after the directory was moved.
# shellcheck disable=SC2034 # used by the scripts that source this one
python=.venv/bin/python

say() { printf '%s\n' "$*" >&2; }

# The program, in the directory where the script was called: it reads `.env` and finds files and plug-ins there, as
# `chatstream` does; what it makes for itself is in the repository. No shell stays in between: signals reach the program.
chatstream() {
    export CLONE_OF_CHATSTREAM=$PWD PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
    local python=$PWD/$python
    cd -- "$called_from" || exit
    exec "$python" -P -m chatstream "$@" # -P: a file of that directory takes no module's place
}

# If the first argument asks for help: prints the text from standard input, and ends the script.
describe() {
    case "${1-}" in
    -h | --help) cat && exit ;;
    esac
}

no_arguments() { [ $# = 0 ] || { say "There are no arguments; see --help." && exit 2; }; }

environment() {
    # One installation at a time. The lock is on this file, so no lock file must be cleaned up.
    exec 9<scripts/environment.sh
    if command -v flock >/dev/null; then
        flock -n 9 || { say "Waiting for another script that is making .venv." && flock 9; }
    fi
    # The development requirements include the others: having them is enough.
    if ! installed "$1" && ! installed conf/requirements-dev.txt; then
        .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || make_venv
        local size="some 100 MB, about a minute"
        [ "$1" = conf/requirements.txt ] || size="some 400 MB, a few minutes"
        say "Installing $1 into .venv ($size)."
        rm -f .venv/*.stamp # an interrupted installation must not look like a finished one
        # On a terminal pip shows its progress.
        local quiet=--quiet
        [ ! -t 2 ] || quiet=
        # shellcheck disable=SC2086 # nothing, where it is empty
        .venv/bin/python -m pip install $quiet --disable-pip-version-check --no-input --require-hashes -r "$1" >&2 || {
            say "The installation failed; pip says why above. No network? Then try again when there is one."
            return 1
        }
        identity "$1" >"$(stamp "$1")"
    fi
    libraries || say "Without them the embedded database cannot start; with MONGODB_URI it is not needed."
    exec 9<&-
}

stamp() { printf '.venv/%s.stamp' "$(basename "$1")"; }

# The inputs of an installation: the lock file and the Python version.
identity() { cksum <"$1" && .venv/bin/python -ISc 'import sys; print(sys.version)'; }

installed() { [ -f "$(stamp "$1")" ] && [ "$(identity "$1" 2>/dev/null)" = "$(cat "$(stamp "$1")")" ]; }

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer is needed, and none was found on the PATH: https://www.python.org/downloads/"
    return 1
}

make_venv() {
    local base
    base=$(find_python)
    # Debian and Ubuntu ship venv apart from Python.
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        packages "$("$base" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    say "Making .venv with $("$base" --version)."
    "$base" -m venv --clear .venv >&2
}

# The shared libraries that the wheel's mongod needs and slim images lack.
libraries() {
    local mongod missing
    command -v mongod >/dev/null && return # that one is used, and its package saw to its libraries
    command -v ldd >/dev/null || return 0
    for mongod in .venv/lib/python3*/site-packages/fiftyone/db/bin/mongod; do
        [ -x "$mongod" ] || return 0
        missing=$(ldd "$mongod" 2>/dev/null | sed -n \
            -e 's/^[[:space:]]*libcurl\.so\.4 => not found$/libcurl4/p' \
            -e 's/^[[:space:]]*lib\(ssl\|crypto\)\.so\.3 => not found$/libssl3/p' | sort -u)
        # shellcheck disable=SC2086 # a list of names
        [ -z "$missing" ] || packages $missing
    done
}

packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing $* with apt-get."
        apt-get update -qq </dev/null >&2 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null >&2 &&
            return
    fi
    say "Missing: $*. On Debian and Ubuntu, as root: apt-get install $*"
    return 1
}
