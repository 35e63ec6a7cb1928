#!/usr/bin/env bash
# Runs the tests from a fresh checkout: installs what is missing, builds, then hands over to run.ts.
#   test/run.sh             every test
#   test/run.sh slow        the long ones: a Debian guest with cloud-init, a fresh Debian, soaks
#   test/run.sh bench       the benchmark table
#   test/run.sh PATH...     the tests of these files or folders
#   test/run.sh prepare     no test: only what comes before
set -euo pipefail
cd "$(dirname "$0")/.."

./install.sh --tests --quiet
# node-gyp takes Node's headers from here, and asks the network for none.
[ ! -e /usr/include/node/node.h ] || export npm_config_nodedir=/usr
if [ ! -x node_modules/.bin/bun ] || [ ! -d node_modules/node-pty ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --no-fund --no-audit --loglevel=error
fi
npm run --silent build
node_modules/.bin/bun test/support/build-images.ts
[ "${1:-}" != prepare ] || exit 0
exec node_modules/.bin/bun test/run.ts "$@"
