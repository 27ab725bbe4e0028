#!/bin/sh
# What mpirun takes for ssh: agent.sh ADDRESS COMMAND... runs a command on the host of that address, a network namespace with
# a name of its own.
set -eu
host=gc$((${1##*.} - 1))
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
