#!/usr/bin/env bash
# What the exchange costs between hosts, by delay: each rank in a network namespace with a name of its own, Open MPI over TCP.
#
#     cargo build --release --example cost
#     sudo benches/network/network.sh [--ranks "1 2 4 8"] [--delays "direct 0 100 1000"] [--mca "NAME VALUE"] \
#         [-- TENSORS...]
#
# A delay is what a packet is held for on its way, in microseconds; `direct` is a bridge of the kernel's, which holds nothing.
# Where the kernel has `tc netem`, that delays; else relay.py does. What was really there says ping, before each series.
# Ranks go before whatever else wants a core: keep series short. Linux, as root; it installs with apt what is missing, saying
# so. Namespaces are called gc0, gc1, ..., gcnet, and are gone at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../../tests/drivers.sh
. "$here/../../../tests/drivers.sh"

ranks="1 2 4 8"
delays="direct 0 100 1000"
mca=()
while [ $# -gt 0 ]; do
    case $1 in
        --ranks) ranks=$2 && shift 2 ;;
        --delays) delays=$2 && shift 2 ;;
        # Words of one option: a name and a value.
        --mca) read -ra words <<<"$2" && mca+=(--mca "${words[@]}") && shift 2 ;;
        --) shift && break ;;
        *) drivers_die "unknown: $1" ;;
    esac
done
program=$here/../../target/release/examples/cost
[ -x "$program" ] || drivers_die "first: cargo build --release --example cost"
[ "$(id -u)" -eq 0 ] || drivers_die "namespaces need root"
for need in ip:iproute2 ping:iputils-ping mpirun:openmpi-bin python3:python3 chrt:util-linux; do
    command -v "${need%%:*}" >/dev/null && continue
    drivers_need_apt "${need%%:*}"
    drivers_apt_install "${need%%:*}" "${need##*:}"
done

hosts=$(tr ' ' '\n' <<<"$ranks" | sort -n | tail -n 1)
relay=
scratch=$(mktemp -d)

take_down() {
    local i
    # The relay ends when its standard input does.
    if [ -n "$relay" ]; then
        exec 3>&-
        wait "$relay" || true
        relay=
    fi
    for ((i = 0; i < hosts; i++)); do ip netns del "gc$i" 2>/dev/null || true; done
    ip netns del gcnet 2>/dev/null || true
}
finish() {
    take_down
    rm -rf "$scratch"
}
trap finish EXIT

inside() { ip netns exec "$@"; }

# Hosts on a bridge of the kernel's, of 1500 bytes a packet as it leaves, 64 KiB as it is handed on.
bridge() {
    local i
    ip netns add gcnet
    inside gcnet ip link add bridge type bridge
    inside gcnet ip link set bridge up
    for ((i = 0; i < hosts; i++)); do
        ip netns add "gc$i"
        inside "gc$i" ip link set lo up
        inside "gc$i" ip link add mpi type veth peer name "port$i"
        inside "gc$i" ip link set "port$i" netns gcnet
        inside gcnet ip link set "port$i" master bridge up
        inside "gc$i" ip address add "10.77.0.$((i + 1))/24" dev mpi
        inside "gc$i" ip link set mpi up
    done
}

# Hosts whose packets relay.py holds for $1 microseconds. It goes before the ranks, as a network would.
relayed() {
    local i list=()
    for ((i = 0; i < hosts; i++)); do
        ip netns add "gc$i"
        inside "gc$i" ip link set lo up
        inside "gc$i" ip tuntap add dev mpi mode tun
        inside "gc$i" ip address add "10.77.0.$((i + 1))/24" dev mpi
        # As many bytes as the kernel hands on at once where it cuts packets itself.
        inside "gc$i" ip link set mpi mtu 65000 up
        list+=("gc$i" mpi)
    done
    mkfifo "$scratch/relay-in" 2>/dev/null || true
    chrt --fifo 50 python3 "$here/relay.py" "$1" "${list[@]}" <"$scratch/relay-in" >"$scratch/relay" &
    relay=$!
    exec 3>"$scratch/relay-in"
    for ((i = 0; i < 100; i++)); do
        grep -q ready "$scratch/relay" && return 0
        sleep 0.1
    done
    drivers_die "the relay did not begin"
}

has_netem() {
    ip netns add gcnet
    local known=0
    inside gcnet tc qdisc add dev lo root netem delay 1ms 2>/dev/null || known=1
    ip netns del gcnet
    return "$known"
}

# Sets hosts up for a delay; says what holds packets.
put_up() {
    local i
    if [ "$1" = direct ]; then
        bridge
        held="a bridge"
    elif has_netem; then
        bridge
        for ((i = 0; i < hosts; i++)); do
            inside "gc$i" tc qdisc add dev mpi root netem delay "${1}us" limit 100000
        done
        held="netem, $1 us"
    else
        relayed "$1"
        held="relay, $1 us"
    fi
}

# The median of 200 pings, in microseconds.
round_trip() {
    inside gc0 ping -n -c 200 -i 0.005 "10.77.0.$hosts" | sed -nE 's/.*time=([0-9.]+) ms.*/\1/p' | sort -n |
        awk '{ t[NR] = $1 } END { printf "%.0f", t[int((NR + 1) / 2)] * 1000 }'
}

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RAYON_NUM_THREADS=1
over_tcp=(
    --mca plm_rsh_agent "$here/agent.sh" --mca plm_rsh_no_tree_spawn 1
    --mca btl "tcp,self" --mca pml ob1
    --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24
    # More ranks than cores.
    --mca mpi_yield_when_idle 1 --bind-to none
)

load() { cut -d' ' -f1 /proc/loadavg; }
printf '# %s, %s cores, load %s, %s\n' "$(mpirun --version | head -n 1)" "$(nproc)" "$(load)" "$(uname -sr)"
for delay in $delays; do
    put_up "$delay"
    ping=
    [ "$hosts" -eq 1 ] || ping=$(round_trip)
    for n in $ranks; do
        where=$(for ((i = 1; i <= n; i++)); do printf '10.77.0.%d:1,' "$i"; done)
        # It may not make a process group of what another session's leader begins, says so each time, and goes on.
        "$here/agent.sh" 10.77.0.1 mpirun "${over_tcp[@]}" "${mca[@]}" --host "${where%,}" -n "$n" \
            chrt --fifo 10 "$program" "$@" </dev/null 2> >(grep -v setpgid >&2) |
            sed "s/^/$held, ping ${ping:-none} us, load $(load): /"
    done
    take_down
done
