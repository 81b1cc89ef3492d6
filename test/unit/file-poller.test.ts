import { FilePoller } from '../../src/config/file-poller';

let content: string | Error;
const poller = (): FilePoller<string> =>
  new FilePoller(
    () => {
      if (content instanceof Error) throw content;
      return content;
    },
    (text) => text,
    'old',
  );

test('the poller returns a new content after two reads in a row found it, and never a half-written one', () => {
  const files = poller();
  const polls = ['old', 'new-ha', 'new-half', 'new-half-written', 'new-half-written', 'new-half-written'].map(
    (text) => {
      content = text;
      return files.poll();
    },
  );
  expect(polls).toEqual(['old', undefined, undefined, undefined, 'new-half-written', 'new-half-written']);
});

test('after a failed read the poller needs two more reads that agree', () => {
  const files = poller();
  content = new Error('not readable');
  expect(() => files.poll()).toThrow('not readable');
  content = 'old';
  expect(files.poll()).toBeUndefined();
  expect(files.poll()).toBe('old');
});
