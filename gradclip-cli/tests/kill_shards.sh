#!/usr/bin/env bash
# Kills `gradclip clip` of a set of three shards at random moments (SIGKILL) and looks at the folder that it was
# writing into: it must hold either all files of before or all of after, byte for byte, every time.
#
#     gradclip-cli/tests/kill_shards.sh [KILLS] [MEBIBYTES]     200 kills and 16 MiB a shard unless given
#
# GRADCLIP=PATH takes that program instead of building one. Prints how many folders were old and how many new, and
# in which phase the process was, as what it left behind tells.
set -euo pipefail
export LC_ALL=C

kills=${1:-200}
mebibytes=${2:-16}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${GRADCLIP:-}" ]; then
    (cd "$root" && cargo build --quiet -p gradclip-cli </dev/null)
    GRADCLIP=${CARGO_TARGET_DIR:-$root/target}/debug/gradclip
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
# The same moments and the same bytes in every run, as far as clocks allow.
RANDOM=20260

# le64 NUMBER: its eight bytes, the lowest first.
le64() {
    local number=$1 i
    for ((i = 0; i < 8; i++)); do
        printf "\\x$(printf %02x $((number >> (8 * i) & 255)))"
    done
}

# shard FILE NAME ELEMENTS LETTERS: one tensor of text, which as f32 is finite whatever it says.
shard() {
    local header
    header=$(printf '{"%s":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' "$2" "$3" $((4 * $3)))
    { le64 ${#header} && printf %s "$header" && yes "$4" | head -c $((4 * $3)); } >"$1" || [ -s "$1" ]
}

files=(model-00001-of-00003.safetensors model-00002-of-00003.safetensors model-00003-of-00003.safetensors)
index=model.safetensors.index.json
mkdir in
for i in 0 1 2; do
    # `head` closes the pipe on `yes`.
    (set +o pipefail && shard "in/${files[i]}" "layer.$i" $((mebibytes << 18)) "gradient of layer $i: ")
done
printf '{"metadata":{"total_size":%d},"weight_map":{"layer.0":"%s","layer.1":"%s","layer.2":"%s"}}\n' \
    $((3 * (mebibytes << 20))) "${files[@]}" >in/$index

clip() { "$GRADCLIP" clip in/$index --max-norm "$1" --device cpu --out "$2" --json; }
now() { # in microseconds
    local time=${EPOCHREALTIME/[.,]/}
    printf %s "$time"
}

# What is there before, with a file of someone else's, and what should be there after.
clip 1 old >/dev/null
echo "someone else's" >old/notes.txt
clip 2 new >/dev/null
cp old/notes.txt new/
for file in "${files[@]}"; do
    cmp -s "old/$file" "new/$file" && { echo "old and new do not differ" >&2; exit 1; }
done

same() { # TARGET AS: every file of the one and no other, equal in the other
    local name
    [ "$(cd "$1" && find . | sort)" = "$(cd "$2" && find . | sort)" ] || return 1
    for name in "${files[@]}" $index notes.txt; do
        cmp -s "$1/$name" "$2/$name" || return 1
    done
}

restore() {
    rm -rf target .gradclip-*
    cp -r old target
}

# The median of five whole runs.
times=$(for _ in 1 2 3 4 5; do
    restore
    begin=$(now)
    clip 2 target >/dev/null
    echo $(($(now) - begin))
done | sort -n)
whole=$(sed -n 3p <<<"$times")
same target new || { echo "a run that nobody killed did not write what it should" >&2; exit 1; }
echo "$kills kills within $((whole / 1000)) ms, $mebibytes MiB a shard"

old=0 new=0 ended=0 early=0 writing=0 written=0 removing=0
for ((kill = 0; kill < kills; kill++)); do
    restore
    # Half of the kills are spread over the whole run, each at a random moment of its part. The rest come up to 16 ms
    # after someone else's file has got its place in the new folder, which is the last thing before the exchange.
    if ((kill % 2)); then
        part=$((whole * 21 / 20 / kills + 1))
        delay=$((part * kill + (RANDOM << 15 | RANDOM) % part))
    else
        delay=$((RANDOM / 2))
    fi
    # The program itself, not a shell around it, is what is killed.
    "$GRADCLIP" clip in/$index --max-norm 2 --device cpu --out target >/dev/null 2>&1 &
    process=$!
    if ((kill % 2 == 0)); then
        until compgen -G '.gradclip-*/notes.txt' >/dev/null || ! kill -0 "$process" 2>/dev/null; do :; done
    fi
    sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
    kill -KILL "$process" 2>/dev/null || true
    if wait "$process" 2>/dev/null; then ended=$((ended + 1)) over=yes; else over=no; fi
    left=$(find . -maxdepth 1 -name '.gradclip-*')
    if same target old; then
        old=$((old + 1))
        if [ -z "$left" ]; then
            early=$((early + 1))
        elif [ -e "$left/notes.txt" ]; then
            written=$((written + 1))
        else
            writing=$((writing + 1))
        fi
    elif same target new; then
        new=$((new + 1))
        if [ "$over" = no ] && [ -n "$left" ]; then removing=$((removing + 1)); fi
    else
        echo "kill $kill after $delay µs: the folder is neither old nor new:" >&2
        ls -la target $left >&2
        exit 1
    fi
done
echo "old $old, new $new, neither 0"
echo "killed before anything was written $early, while writing $writing, between the last file and the exchange $written,"
echo "while removing the old folder $removing; ended before the kill came $ended"
# Kills that all miss prove nothing.
[ "$writing" -gt 0 ] && [ "$new" -gt 0 ]
