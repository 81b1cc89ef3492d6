#!/usr/bin/env bash
# ioredis 5.11.1: monitor() loses its connection, if the first monitored command arrives in the packet of the reply to MONITOR.
#
# Expected: Each line after the reply +OK is a "monitor" event, however TCP groups the bytes. Redis sends a line for every command of
#           every client from that moment on, so on a server with traffic the first line often follows the reply at once.
# Seen:     ioredis enters its monitoring state one turn of the event loop after +OK. A line that stands in the same packet counts as a
#           reply without a command: an "error" event says "Command queue state error", and the line is lost. A test or a tool that watches
#           a busy server fails now and then. The same lines in a packet of their own arrive.
#
# A local server replies with the bytes that Redis would send. Prints what each connection saw. Exits with 0 while ioredis behaves so,
# and with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts ioredis@5.11.1

cat > run.js <<'JS'
const { createServer } = require('node:net');
const { setTimeout: sleep } = require('node:timers/promises');
const { Redis } = require('ioredis');

const LINE = '+1795875426.810180 [0 127.0.0.1:38558] "ping"\r\n';

/** What a monitor sees of one line, which the server sends with its reply or after it. */
async function monitored(together) {
  const server = createServer((socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('data', async (data) => {
      if (!/monitor/i.test(data.toString())) return void socket.write('+OK\r\n');
      socket.write(together ? `+OK\r\n${LINE}` : '+OK\r\n');
      if (together) return;
      await sleep(300);
      socket.write(LINE);
    });
  }).listen(0, '127.0.0.1');
  await new Promise((listening) => server.once('listening', listening));
  const options = { enableReadyCheck: false, disableClientInfo: true, lazyConnect: true, retryStrategy: () => null };
  const redis = new Redis(server.address().port, '127.0.0.1', options);
  redis.on('error', () => {});
  const seen = [];
  await redis.connect();
  const monitor = await Promise.race([
    redis.monitor().catch((error) => void seen.push(`rejected: ${error.message.split('.')[0]}`)),
    sleep(2_000),
  ]);
  monitor?.on('error', (error) => seen.push(`error: ${error.message.split('.')[0]}`));
  monitor?.on('monitor', (time, command) => seen.push(`command: ${command.join(' ')}`));
  await sleep(1_000);
  monitor?.disconnect();
  redis.disconnect();
  server.close();
  return seen.join(', ') || 'nothing';
}

(async () => {
  const [apart, together] = [await monitored(false), await monitored(true)];
  console.log(`ioredis 5.11.1, the line in a packet of its own: ${apart}`);
  console.log(`ioredis 5.11.1, the line in the packet of the reply: ${together}`);
  process.exit(apart === 'command: ping' && !together.includes('command: ping') ? 0 : 1);
})();
JS
node run.js
