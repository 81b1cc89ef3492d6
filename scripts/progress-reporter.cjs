// A line when a test begins and when it ends: Jest itself is silent until the whole file has ended.
module.exports = class ProgressReporter {
  begun = new Map();

  onTestCaseStart(_test, { fullName }) {
    this.begun.set(fullName, performance.now());
    process.stdout.write(`begins: ${fullName}\n`);
  }

  onTestCaseResult(_test, { fullName, status }) {
    if (!this.begun.has(fullName)) return;
    const seconds = (performance.now() - this.begun.get(fullName)) / 1_000;
    process.stdout.write(`${status} after ${seconds.toFixed(0)} s: ${fullName}\n`);
  }
};
