#!/bin/sh
# Install the Debian packages that the tests need and this machine lacks; without root or apt, name them and go on.
set -eu
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing=""
while read -r program package; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $package"
done <<END
sshd openssh-server
ssh openssh-client
ip iproute2
nft nftables
ps procps
hostname hostname
tcsh tcsh
fish fish
zsh zsh
less less
tmux tmux
munged munge
slurmctld slurm-wlm
slurmdbd slurmdbd
mariadbd mariadb-server-core
END
[ -x .venv/bin/python ] || python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed here, and some tests will be skipped without:$missing" >&2
    exit 0
fi
echo "installing for the tests:$missing"
# The tests start their own sshd; the package must not start one of its own on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086  # a list of packages
apt-get install -q -y --no-install-recommends $missing
