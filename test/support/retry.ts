// The machines of CI are shared and stand still now and then. What fails there is run once more, printed, and counted at the
// end: a fault that is there fails both times. Nobody's own machine does so.
if (process.env.CI) jest.retryTimes(1, { logErrorsBeforeRetry: true });
