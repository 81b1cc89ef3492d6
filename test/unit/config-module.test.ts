import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Injectable, Module } from '@nestjs/common';
import { ConfigService } from '@nestjs/config';
import { Test } from '@nestjs/testing';
import { Config, ConfigError, SETTING_NAMES, type Environment } from '../../src/config/config';
import { ConfigModule } from '../../src/config/config.module';

@Injectable()
class ClientContext {
  constructor(readonly config: Config) {}
}

@Module({ providers: [ClientContext], exports: [ClientContext] })
class AskingModule {}

const compile = (environment?: Environment) =>
  Test.createTestingModule({ imports: [ConfigModule.register(environment), AskingModule] }).compile();

const configOf = async (environment?: Environment) => (await compile(environment)).get(ClientContext).config;

const environmentBefore = { ...process.env };
const folderBefore = process.cwd();
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-module-'));
  process.chdir(folder);
  // The machine that runs this may have a HOST of its own.
  for (const name of SETTING_NAMES) Reflect.deleteProperty(process.env, name);
  process.env.NODE_ENV = 'test';
});

afterEach(() => {
  process.chdir(folderBefore);
  rmSync(folder, { recursive: true });
  for (const name of Object.keys(process.env))
    if (!(name in environmentBefore)) Reflect.deleteProperty(process.env, name);
  Object.assign(process.env, environmentBefore);
});

describe('with an environment of its own', () => {
  test('ConfigModule with a given environment injects one Config everywhere', async () => {
    const container = await compile({ STARTMESSAGING_API_KEY: 'k', PORT: '4000' });
    const { config } = container.get(ClientContext);
    expect(config).toBeInstanceOf(Config);
    expect(config.port).toBe(4000);
    expect(container.get(Config)).toBe(config);
  });

  test('ConfigModule with a given environment reads neither .env nor process.env', async () => {
    writeFileSync('.env', 'PORT=4001\n');
    process.env.HOST = '127.0.0.9';
    expect(await configOf({ STARTMESSAGING_API_KEY: 'k' })).toMatchObject({
      port: 3000,
      host: '0.0.0.0',
      nodeEnv: 'development',
    });
  });
});

describe('without one', () => {
  test('ConfigModule without an environment reads .env, and process.env wins over it', async () => {
    writeFileSync('.env', 'STARTMESSAGING_API_KEY=from-file\nPORT=4001\nHOST=127.0.0.8\n');
    process.env.PORT = '4002';
    expect(await configOf()).toMatchObject({
      startMessagingApiKey: 'from-file',
      port: 4002,
      host: '127.0.0.8',
      nodeEnv: 'test',
    });
  });

  test('ConfigModule copies nothing into process.env, and offers no second way to read it', async () => {
    writeFileSync('.env', 'STARTMESSAGING_API_KEY=canary\nSECRET=canary\n');
    const before = { ...process.env };
    const container = await compile();
    expect(process.env).toEqual(before);
    const service = container.get(ConfigService, { strict: false });
    expect(service.get('SECRET')).toBeUndefined();
    expect(service.get('PATH')).toBeUndefined();
  });
});

test('ConfigModule throws all faults of the environment at once when it is registered', () => {
  const register = () => ConfigModule.register({ PORT: 'x' });
  expect(register).toThrow(ConfigError);
  expect(register).toThrow('PORT must be a whole number from 0 to 65535\nSTARTMESSAGING_API_KEY is required');
});
