const { SWC } = require('./test/support/compile');

/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: '<rootDir>/test/support/environment.js',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  transform: { '\\.[cm]?[jt]s$': ['@swc/jest', SWC] },
  // Nest 12 and a few others are ES modules only; Jest cannot require() those untransformed.
  transformIgnorePatterns: [
    '/node_modules/(?!(@nestjs|@fastify/cookie|file-type|jose|oauth4webapi|openid-client|cookie|content-disposition)/)',
  ],
  globalSetup: '<rootDir>/test/support/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/global-teardown.ts',
  setupFiles: ['reflect-metadata'],
  setupFilesAfterEnv: ['<rootDir>/test/support/retry.ts'],
  // Only a hang lasts longer: see test/support/hang.ts.
  testTimeout: 180_000,
};
