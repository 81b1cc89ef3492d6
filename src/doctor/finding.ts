/** The result of a check. A fault keeps the service from working; with a warning it works less safely than it could. */
export interface Finding {
  readonly check: string;
  readonly level: 'ok' | 'warning' | 'fault';
  /** In words that an operator can act on. Never the value of a secret. */
  readonly message: string;
}

export const ok = (check: string, message: string): Finding => ({ check, level: 'ok', message });
export const warning = (check: string, message: string): Finding => ({ check, level: 'warning', message });
export const fault = (check: string, message: string): Finding => ({ check, level: 'fault', message });
