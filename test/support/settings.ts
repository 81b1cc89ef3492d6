import type { Config, Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { API_KEY, SECRET, SUBJECT_SECRET } from './world';

/** Settings under which no send and no code is refused, so that a test names the limits that it is about. */
export const settings = (variables: Environment = {}): Config =>
  readConfig({
    NODE_ENV: 'test',
    SECRET,
    SUBJECT_SECRET,
    STARTMESSAGING_API_KEY: API_KEY,
    LIMIT_PHONE: '1000000/60',
    LIMIT_GLOBAL: '1000000/1',
    LIMIT_FAILED_CODES: '1000000/3600',
    ...variables,
  });
