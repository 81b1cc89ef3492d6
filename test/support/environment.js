// Jest gives every test file a module registry of its own, in which Nest and its packages take two seconds of CPU to load.
// End-to-end tests only talk to the service, so Node.js loads it once for all test files of a worker.
const { join } = require('node:path');
const { TestEnvironment } = require('jest-environment-node');
const { compiledService } = require('./compile');

module.exports = class extends TestEnvironment {
  async setup() {
    await super.setup();
    this.global.loadModule = (path) => require(join(compiledService(), `${path}.js`));
    // The service has another `Date` and `setTimeout` than the test.
    this.global.globalOfService = globalThis;
  }
};
