import { listPresets } from './presets';

const json = (schema: object, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});
const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });
const list = (name: string, items: object) => ({
  type: 'object',
  required: [name],
  properties: { [name]: { type: 'array', items } },
});
const FAULTY = { 400: json(ref('Error'), 'The request makes no sense; `error` says what is wrong with it') };
const done = { 204: { description: 'Done' } };

const SETTINGS = {
  contract: { type: 'string', enum: ['both', 'caller', 'provider'] },
  perNumberLimit: { type: 'boolean', description: 'Three SMS to a number in 300 seconds at most.' },
  balance: { type: 'number', minimum: 0, description: 'Rupees in the wallet.' },
  walletUnit: { type: 'string', enum: ['rupees', 'millionths'], description: 'The unit of `GET /wallet`.' },
  otpTtlSeconds: { type: 'integer', minimum: 0 },
  otpAttempts: { type: 'integer', minimum: 0 },
  sentAfterMs: { type: 'integer', minimum: 0 },
  deliveredAfterMs: { type: 'integer', minimum: 0 },
};

/** The OpenAPI document of the routes that script the emulator, for end-to-end tests in any language. */
export function openApiDocument(): object {
  const fault = {
    type: 'object',
    required: ['on', 'fault'],
    properties: {
      on: { type: 'string', enum: ['send', 'verify', 'message', 'wallet', 'any'] },
      provider: { type: 'string', enum: ['startmessaging', 'sendwithses'] },
      phoneNumber: { type: 'string', description: 'Only calls about this number.', example: '+919876543210' },
      times: { type: 'integer', minimum: 0, default: 1, description: 'How many calls; 0 is all of them.' },
      fault: {
        oneOf: [
          { type: 'string', enum: listPresets().map(({ name }) => name) },
          { type: 'object', required: ['kind'], properties: { kind: { type: 'string' } } },
        ],
      },
    },
  };
  const message = {
    type: 'object',
    required: ['id', 'phoneNumber', 'code', 'text', 'contract', 'createdAt', 'status'],
    properties: {
      id: { type: 'string' },
      requestId: {
        type: 'string',
        description: 'The id of the OTP at the provider, not that of the service.',
      },
      phoneNumber: { type: 'string', example: '+919876543210' },
      code: { type: 'string', example: '123456' },
      text: { type: 'string' },
      contract: { type: 'string', enum: ['caller', 'provider', 'sendwithses'] },
      createdAt: { type: 'string', format: 'date-time' },
      status: { type: 'string', example: 'delivered' },
    },
  };
  const call = {
    type: 'object',
    required: ['method', 'path', 'headers', 'apiKeyValid', 'accepted', 'at'],
    properties: {
      method: { type: 'string' },
      path: { type: 'string' },
      headers: { type: 'object', description: 'As received; keys are masked.' },
      apiKeyValid: { type: 'boolean' },
      body: { description: 'The JSON of the body, or its text.' },
      accepted: { type: 'boolean', description: 'Whether the call had its effect.' },
      status: { type: 'integer', description: 'The status of the answer, once there is one.' },
      at: { type: 'string', format: 'date-time' },
    },
  };
  const preset = {
    type: 'object',
    required: ['name', 'group', 'title', 'on'],
    properties: {
      name: { type: 'string' },
      group: { type: 'string' },
      title: { type: 'string' },
      on: { type: 'array', items: { type: 'string' } },
      answers: { type: 'object', description: 'The answer of the service by the call that fails.' },
    },
  };
  return {
    openapi: '3.0.3',
    info: {
      title: 'StartMessaging emulator',
      version: '0.1.0',
      description:
        'Reads the SMS and scripts faults of the emulator of otp-login. For tests only: it shows codes.',
    },
    servers: [{ url: '/' }],
    paths: {
      '/_emulator/messages': {
        get: {
          operationId: 'listMessages',
          summary: 'Every SMS that was accepted, the oldest first',
          parameters: [
            {
              name: 'phoneNumber',
              in: 'query',
              schema: { type: 'string' },
              description: 'Only SMS to this number.',
            },
          ],
          responses: { 200: json(list('messages', ref('Message')), 'The SMS with their codes') },
        },
      },
      '/_emulator/calls': {
        get: {
          operationId: 'listCalls',
          summary: 'Every call of the API, the oldest first',
          responses: { 200: json(list('calls', ref('Call')), 'The calls') },
        },
      },
      '/_emulator/presets': {
        get: {
          operationId: 'listPresets',
          summary: 'Faults that have a name',
          responses: { 200: json(list('presets', ref('Preset')), 'The presets') },
        },
      },
      '/_emulator/faults': {
        get: {
          operationId: 'listFaults',
          summary: 'Faults that are still to come',
          responses: { 200: json(list('faults', ref('Fault')), 'The faults') },
        },
        post: {
          operationId: 'addFault',
          summary: 'Script a fault for calls to come',
          requestBody: { required: true, content: { 'application/json': { schema: ref('Fault') } } },
          responses: {
            201: json(list('faults', ref('Fault')), 'All faults that are still to come'),
            ...FAULTY,
          },
        },
        delete: { operationId: 'clearFaults', summary: 'End all faults', responses: done },
      },
      '/_emulator/settings': {
        get: {
          operationId: 'getSettings',
          summary: 'How the emulated account behaves',
          responses: { 200: json(ref('Settings'), 'The settings') },
        },
        patch: {
          operationId: 'changeSettings',
          summary: 'Change how the emulated account behaves',
          requestBody: { required: true, content: { 'application/json': { schema: ref('Settings') } } },
          responses: { 200: json(ref('Settings'), 'All settings'), ...FAULTY },
        },
      },
      '/_emulator': {
        delete: {
          operationId: 'startOver',
          summary: 'Forget SMS, calls, faults and keys, and reset every setting',
          description: 'In the demo, the service restarts too: its limits, locks and sessions are gone.',
          responses: done,
        },
      },
      '/_emulator/events': {
        get: {
          operationId: 'followEvents',
          summary: 'Server-sent events with SMS, settings and faults after each change',
          responses: { 200: { description: 'A stream without end', content: { 'text/event-stream': {} } } },
        },
      },
    },
    components: {
      schemas: {
        Message: message,
        Call: call,
        Preset: preset,
        Fault: fault,
        Settings: { type: 'object', properties: SETTINGS },
        Error: { type: 'object', required: ['error'], properties: { error: { type: 'string' } } },
      },
    },
  };
}
