// A line when a test begins, in each minute while it runs, and when it ends: Jest itself is silent until its file has ended.
const MINUTE_MS = 60_000;

module.exports = class ProgressReporter {
  begun = new Map();

  onTestCaseStart(_test, { fullName }) {
    const since = performance.now();
    const minutes = () => ((performance.now() - since) / MINUTE_MS).toFixed(1);
    const timer = setInterval(() => {
      process.stdout.write(`runs for ${minutes()} min: ${fullName}\n`);
    }, MINUTE_MS);
    timer.unref();
    this.begun.set(fullName, { timer, minutes });
    process.stdout.write(`begins: ${fullName}\n`);
  }

  onTestCaseResult(_test, { fullName, status }) {
    const its = this.begun.get(fullName);
    if (!its) return;
    clearInterval(its.timer);
    this.begun.delete(fullName);
    process.stdout.write(`${status} after ${its.minutes()} min: ${fullName}\n`);
  }
};
