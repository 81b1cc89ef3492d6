/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  // .swcrc is not used: the options stand here, so that there is one place to look.
  transform: {
    '^.+\\.[cm]?[jt]s$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2023',
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true },
        },
        module: { type: 'commonjs' },
      },
    ],
  },
  // Nest 12 and a few others are ES modules only; Jest cannot require() those untransformed.
  transformIgnorePatterns: [
    '/node_modules/(?!(@nestjs|@fastify/cookie|file-type|jose|oauth4webapi|openid-client|cookie|content-disposition)/)',
  ],
  setupFiles: ['reflect-metadata'],
  setupFilesAfterEnv: ['<rootDir>/test/support/retry.ts'],
  testTimeout: 60_000,
};
