import type { Emulator } from '../../src/emulator/emulator';
import { as } from './crowd';
import { until } from './hang';
import { call, freshNumber, sendOtp, textedCode, verifyOtp, type Answer } from './world';

/** Logs in with a number, as one person does. */
export async function logInAt(url: string, upstream: Emulator, number = freshNumber()): Promise<Answer> {
  const { body } = await sendOtp(url, number);
  return verifyOtp(url, body.requestId, textedCode(upstream, number));
}

export const me = (url: string, accessToken: unknown): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, as(accessToken));
export const refresh = (url: string, refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
export const logout = (url: string, refreshToken: unknown): Promise<Answer> =>
  call('POST', `${url}/auth/logout`, { refreshToken });

export const isServed = async (url: string): Promise<boolean> =>
  (await sendOtp(url, freshNumber())).status === 200;

/** What the service says as soon as it says something else than 503. */
export async function insist(ask: () => Promise<Answer>): Promise<Answer> {
  let answer = await ask();
  await until(async () => {
    if (answer.status === 503) answer = await ask();
    return answer.status !== 503;
  }, 'an answer other than 503');
  return answer;
}
