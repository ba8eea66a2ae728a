#!/bin/sh
# Roost beside Postfix and Dovecot: the same mails, the same machine, in turns; medians, and ratios ours over theirs.
#
#   benches/compare.sh [--n 1000] [--runs 5] [--kinds text,binary] [--sizes 1K,10K,100K,1M] [--connections 4]
#                      [--groups alone,3-of-5] [--out FOLDER] [--baseline FOLDER]
#
# With members there are two rows: mails read as they come, and (when-safe) all opened once every one is safe(2).
# The conventional system is started and measured by scripts of its own (corpus.py, postfix_dovecot.py), whose folder is named by
# --baseline or $BASELINE; `../shared/baseline` is tried. They need root, Python 3.9 and the packages that their README names.
# $ROOST is the program [target/release/roost]; $TMPDIR is where both keep their files, and must be short.
# Lines of JSON are left in the folder --out [a new one, named at the end]: roost.jsonl, conventional.jsonl, and the mails.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
n=1000 runs=5 kinds=text,binary sizes=1K,10K,100K,1M connections=4 groups=alone,3-of-5 out=
baseline=${BASELINE:-$here/../shared/baseline}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "compare.sh: $1 needs a value" >&2; exit 2; }
    case $1 in
        --n) n=$2 ;;
        --runs) runs=$2 ;;
        --kinds) kinds=$2 ;;
        --sizes) sizes=$2 ;;
        --connections) connections=$2 ;;
        --groups) groups=$2 ;;
        --out) out=$2 ;;
        --baseline) baseline=$2 ;;
        *) echo "compare.sh: $1 is unknown; the first lines of this file say what there is" >&2; exit 2 ;;
    esac
    shift 2
done
roost=${ROOST:-$here/target/release/roost}
[ -x "$roost" ] || { echo "compare.sh: $roost is not there; cargo build --release, or set ROOST" >&2; exit 2; }
for script in corpus.py postfix_dovecot.py; do
    [ -f "$baseline/$script" ] || { echo "compare.sh: no $script in $baseline; name its folder with --baseline" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "compare.sh: network namespaces, Postfix and Dovecot need root" >&2; exit 2; }
[ -x /usr/sbin/postfix ] && command -v dovecot >/dev/null ||
    { echo "compare.sh: Postfix or Dovecot is not installed; see the README in $baseline" >&2; exit 2; }

if [ -z "$out" ]; then out=$(mktemp -d); fi
mkdir -p "$out/mails"
: >"$out/roost.jsonl"
: >"$out/conventional.jsonl"

bytes() { case $1 in *K) echo $((${1%K} * 1024)) ;; *M) echo $((${1%M} * 1048576)) ;; *) echo "$1" ;; esac; }
each() { echo "$1" | tr , ' '; }

# The folder of one corpus, under the name by which the conventional system's script finds it.
mails() {
    encoding=qp
    folder=$out/mails/$1-$(bytes "$2")-$n-1-$encoding
    if [ ! -f "$folder/manifest.jsonl.done" ]; then
        python3 "$baseline/corpus.py" fixed --out "$folder" --n "$n" --size "$2" --kind "$1" >/dev/null
        : >"$folder/manifest.jsonl.done"
        sync
    fi
    echo "$folder"
}

ours() {
    for group in $(each "$groups"); do
        echo "  roost, $group" >&2
        # Alone nothing becomes safe(2).
        if [ "$group" = alone ]; then open=at-once; else open=at-once,when-safe; fi
        "$roost" bench receive --json --eml "$(mails "$1" "$2")" --kind "$1" --size "$2" --n "$n" \
            --connections "$connections" --group "$group" --open "$open" >>"$out/roost.jsonl"
    done
}

theirs() {
    echo "  Postfix and Dovecot" >&2
    python3 "$baseline/postfix_dovecot.py" --cache "$out/mails" --kind "$1" --size "$2" --n "$n" \
        --conns "$connections" --modes stream >>"$out/conventional.jsonl"
}

for kind in $(each "$kinds"); do
    for size in $(each "$sizes"); do
        mails "$kind" "$size" >/dev/null
        run=1
        while [ "$run" -le "$runs" ]; do
            echo "$kind $size, run $run of $runs" >&2
            # Who goes first changes with every run, so that neither always meets the other's caches and write-back.
            if [ $((run % 2)) = 1 ]; then ours "$kind" "$size"; theirs "$kind" "$size"; else theirs "$kind" "$size"; ours "$kind" "$size"; fi
            run=$((run + 1))
        done
        # Mails of a size are not needed again.
        rm -rf "$(mails "$kind" "$size")"
    done
done

python3 "$here/benches/ratios.py" "$out/roost.jsonl" "$out/conventional.jsonl"
echo
echo "lines of JSON: $out"
