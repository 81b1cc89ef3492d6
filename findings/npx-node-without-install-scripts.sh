#!/usr/bin/env bash
# npm package node 24.21.0: with ignore-scripts=true, `npx node@24.21.0` silently runs another Node.js.
#
# Expected: npx runs Node.js 24.21.0, or fails, because the package could not be set up.
# Seen:     The package links its program in an install script. Without install scripts it offers no program "node", so npx finds the
#           Node.js of the machine on the PATH and runs that one, with exit code 0 and without a warning. A test run "on Node.js 24" is
#           then a second run on the old version.
#
# Prints both versions. Exits with 0 while npx behaves so, with 1 when that changes, and with 2 where the machine has this very version.
set -euo pipefail
version=24.21.0
here=$(node --version)
if [ "$here" = "v$version" ]; then echo "Node.js of this machine is $version itself"; exit 2; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
export npm_config_cache="$folder/cache"

with=$(npx --yes --ignore-scripts=false "node@$version" --version)
rm -rf "$folder/cache/_npx"
without=$(npx --yes --ignore-scripts=true "node@$version" --version)
echo "npm $(npm --version), Node.js of this machine $here: npx node@$version ran $with with install scripts, $without without them"
[ "$with" = "v$version" ] && [ "$without" = "$here" ]
