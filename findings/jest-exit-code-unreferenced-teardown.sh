#!/usr/bin/env bash
# jest 30.5.2, Node.js 20: a run with a failed test exits with 0, if the global teardown waits for an unreferenced handle.
#
# Expected: Jest exits with 1 when a test failed, or reports that its global teardown did not end.
# Seen:     Jest exits with 0. The teardown waits for the exit of a child process that was unreferenced with unref(). Nothing else keeps
#           the event loop alive, so Node.js ends in the middle of the teardown, before Jest has set its exit code. The summary says
#           "1 failed", and every CI system reads success. With a referenced child the same run exits with 1.
#
# Prints both exit codes. Exits with 0 while Jest behaves so, and with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts jest@30.5.2

cat > a.test.js <<'JS'
it('fails', () => { expect(1).toBe(2); });
JS
cat > teardown.js <<'JS'
const { spawn } = require('node:child_process');
const { once } = require('node:events');
module.exports = async () => {
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 500)'], { stdio: 'ignore' });
  if (process.env.UNREFERENCED) child.unref();
  await once(child, 'exit');
  console.log('the teardown ended');
};
JS
echo "module.exports = { globalTeardown: './teardown.js' };" > jest.config.js

run() { env "$@" node node_modules/jest/bin/jest.js --ci > output.txt 2>&1 && echo 0 || echo $?; }
referenced=$(run UNREFERENCED=)
unreferenced=$(run UNREFERENCED=1)
grep -E '^Tests:|the teardown ended' output.txt || true
echo "jest 30.5.2 on Node.js $(node --version): exit code $referenced with a referenced child, $unreferenced with an unreferenced one"
[ "$referenced" = 1 ] && [ "$unreferenced" = 0 ]
