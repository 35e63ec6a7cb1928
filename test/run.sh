#!/usr/bin/env bash
# Runs the tests from a fresh checkout: installs what the host lacks, builds, then hands over to run.ts.
#   test/run.sh          every test
#   test/run.sh slow     the long ones: a Debian guest with cloud-init, soaks
#   test/run.sh bench    the benchmark table
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x node_modules/.bin/bun ] || npm ci
./install.sh --dependencies-only --quiet
npm run --silent build
exec node_modules/.bin/bun test/run.ts "$@"
