// `node tools/picture.mjs`: makes docs/demo.png for the README. It starts the demo, logs in by curl's requests, and takes a
// picture of the real answers beside the phone inbox. It needs Chromium (CHROMIUM_PATH, or in PATH).
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { chromium as browserType } from 'playwright-core';
import { chromium } from '../scripts/programs.mjs';
import { freePort, giveUp, ready, ROOT } from '../scripts/project.mjs';

const SIZE = { width: 1200, height: 620 };
const PHONE = '+919876543210';

const [port, inboxPort] = [await freePort(), await freePort()];
const service = `http://127.0.0.1:${port}`;
const demo = spawn(process.execPath, [join(ROOT, 'scripts', 'demo.mjs')], {
  env: { ...process.env, PORT: String(port), EMULATOR_PORT: String(inboxPort) },
  stdio: ['ignore', 'ignore', 'inherit'],
});
try {
  if (!(await ready(service, () => demo.exitCode !== null, 300_000))) giveUp('The demo did not start.');
  const sent = await post('/auth/send-otp', { phoneNumber: PHONE });
  const { messages } = await (await fetch(`http://127.0.0.1:${inboxPort}/_emulator/messages`)).json();
  const login = { requestId: sent.requestId, otpCode: messages[0].code };
  const verified = await post('/auth/verify-otp', login);

  const browser = await browserType.launch({ executablePath: chromium(), args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: { width: SIZE.width / 2, height: SIZE.height } });
  await page.goto(`http://127.0.0.1:${inboxPort}/`);
  await page.getByText(login.otpCode).first().waitFor();
  const inbox = (await page.screenshot()).toString('base64');
  // A new page, because the inbox allows only its own styles.
  const picture = await browser.newPage({ viewport: SIZE });
  await picture.setContent(pageOf(terminalOf(sent, login, verified), inbox));
  await picture.screenshot({ path: join(ROOT, 'docs', 'demo.png') });
  await browser.close();
  console.log('docs/demo.png');
} finally {
  demo.kill('SIGTERM');
}

async function post(path, body) {
  const response = await fetch(`${service}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) giveUp(`${path} answered ${response.status}: ${await response.text()}`);
  return response.json();
}

/** The two requests and their answers; long tokens are cut. */
function terminalOf(sent, login, verified) {
  const cut = (value) =>
    typeof value === 'string' && value.length > 36 ? `${value.slice(0, 32)}...` : value;
  const json = (value) => JSON.stringify(value, (_, each) => cut(each), 2);
  const curl = (path, body) =>
    `<b>$ curl -X POST localhost:3000${path} -d '${JSON.stringify(body, (_, each) => cut(each))}'</b>`;
  return [
    curl('/auth/send-otp', { phoneNumber: PHONE }),
    json(sent),
    '',
    curl('/auth/verify-otp', login),
    json(verified),
  ].join('\n');
}

function pageOf(terminal, inbox) {
  return `<style>
    body { margin: 0; display: flex; height: ${SIZE.height}px; }
    pre { margin: 0; padding: 16px; width: 50%; box-sizing: border-box; background: #14181f; color: #d5dbe5;
      font: 12px/1.5 monospace; white-space: pre-wrap; word-break: break-all; overflow: hidden; }
    b { color: #7fd1a4; font-weight: normal; }
    img { width: 50%; }
  </style><pre>${terminal}</pre><img src="data:image/png;base64,${inbox}">`;
}
