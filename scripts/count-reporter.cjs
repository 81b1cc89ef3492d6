// A line that people, and machines that know no Jest, can read: "12 passed, 0 failed".
module.exports = class CountReporter {
  onRunComplete(_contexts, results) {
    // A file that does not compile has no failed tests; it must not look like a success.
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    const counts = [`${results.numPassedTests} passed`, `${failed} failed`];
    if (skipped > 0) counts.push(`${skipped} skipped`);
    // In CI what fails is run once more: it must not look as if it had never failed.
    const again = results.testResults
      .flatMap(({ testResults }) => testResults)
      .filter(({ invocations, status }) => invocations > 1 && status === 'passed')
      .map(({ fullName }) => `passed when run again: ${fullName}\n`);
    // Jest's own summary is written after this: wait, so that the line is the last one.
    process.once('exit', () => {
      // Needed even if something ends Node.js before Jest has finished.
      if (failed > 0) process.exitCode ||= 1;
      process.stdout.write(`\n${again.join('')}${counts.join(', ')}\n`);
    });
  }
};
