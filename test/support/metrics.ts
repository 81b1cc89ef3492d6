import { call } from './world';

/** The value of one series of an instance's metrics, such as `otp_login_alerts_total{alert="sms_price"}`; NaN without it. */
export async function metricOf(url: string, series: string): Promise<number> {
  const { body } = await call('GET', `${url}/metrics`);
  const line = String(body)
    .split('\n')
    .find((each) => each.startsWith(`${series} `));
  return line === undefined ? NaN : Number(line.slice(series.length));
}
