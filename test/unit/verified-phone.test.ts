import { join, relative } from 'node:path';
import ts from 'typescript';

// Not what the code does but what cannot be written: each snippet is a file of the project to the compiler.

const ROOT = join(__dirname, '../..');
const IMPORTS = `
import type { ClientContext, OtpService, VerifiedPhone } from '../../src/otp/otp.service';
import type { Client, Session, SessionsService } from '../../src/sessions/sessions.service';
import type { AccessTokens } from '../../src/tokens/access-tokens';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
declare const otp: OtpService;
declare const sessions: SessionsService;
declare const tokens: AccessTokens;
declare const phone: PhoneNumber;
declare const verified: VerifiedPhone;
declare const session: Session;
declare const client: Client;
declare const context: ClientContext;
void [otp, sessions, tokens, phone, verified, session, client, context];
`;

/** What compiles; if one of these did not, the refusals below would prove nothing. */
const HONEST: Record<string, string> = {
  'a code that came back opens a session and a token': `
    export async function login(requestId: string, code: string) {
      return tokens.issue(await sessions.open(await otp.verify(requestId, code, context), client));
    }`,
  'what was verified may be held for a while': `
    export const held: Promise<Session> = sessions.open(verified, client);
    export const token = tokens.issue(session);`,
  'a session that is found in the store gets a token': `
    export async function again(subject: string, id: string) {
      const found = await sessions.find(subject, id);
      return typeof found === 'string' ? found : tokens.issue(found);
    }`,
};

/** The code, and the compiler's number for why it is refused. */
const REFUSED: Record<string, [code: string, reason: number]> = {
  'constructing a VerifiedPhone': [
    `import { VerifiedPhone as Verified } from '../../src/otp/otp.service';
     export const forged: unknown = Reflect.construct(Verified, [phone, 'request']);`,
    1362,
  ],
  'constructing a Session': [
    `import { Session as Opened } from '../../src/sessions/sessions.service';
     export const forged: unknown = Reflect.construct(Opened, ['id', 'subject', phone]);`,
    1362,
  ],
  'a class of its own that extends VerifiedPhone': [
    `import { VerifiedPhone as Verified } from '../../src/otp/otp.service';
     export class Forged extends Verified {}`,
    1362,
  ],
  'a class of its own that extends Session': [
    `import { Session as Opened } from '../../src/sessions/sessions.service';
     export class Forged extends Opened {}`,
    1362,
  ],
  'a bare phone number to sessions.open': [`export const forged = sessions.open(phone, client);`, 2345],
  'a string to sessions.open': [`export const forged = sessions.open('+919876543210', client);`, 2345],
  'an object literal to sessions.open': [
    `export const forged = sessions.open({ phoneNumber: phone, challengeId: 'request' }, client);`,
    2345,
  ],
  'an object literal with every public member to sessions.open': [
    `export const forged = sessions.open({ phoneNumber: phone, challengeId: 'request', verified: true }, client);`,
    2345,
  ],
  'anything that has all public members of a VerifiedPhone': [
    `declare const alike: { [Member in keyof VerifiedPhone]: VerifiedPhone[Member] };
     export const forged = sessions.open(alike, client);`,
    2345,
  ],
  'a copy of a VerifiedPhone with another number': [
    `export const forged = sessions.open({ ...verified, phoneNumber: phone }, client);`,
    2345,
  ],
  'a class of the same shape to sessions.open': [
    `class VerifiedPhone2 {
       readonly #verified = true;
       constructor(readonly phoneNumber: PhoneNumber, readonly challengeId: string) {}
       get verified(): true { return this.#verified; }
     }
     export const forged = sessions.open(new VerifiedPhone2(phone, 'request'), client);`,
    2345,
  ],
  'what send answered, in place of what verify answered': [
    `export async function forged() { return sessions.open(await otp.request(phone, context), client); }`,
    2345,
  ],
  'a promise that nobody awaited': [
    `export const forged = sessions.open(otp.verify('request', '123456', context), client);`,
    2345,
  ],
  'a number that was not parsed to otp.request': [
    `export const forged = otp.request('+919876543210', context);`,
    2345,
  ],
  'a bare phone number to tokens.issue': [`export const forged = tokens.issue(phone);`, 2345],
  'a VerifiedPhone to tokens.issue': [`export const forged = tokens.issue(verified);`, 2345],
  'an object literal to tokens.issue': [
    `export const forged = tokens.issue({ id: 'id', subject: 's', phoneNumber: phone, authenticatedAt: new Date() });`,
    2345,
  ],
  'an object literal with every public member to tokens.issue': [
    `export const forged = tokens.issue({
       id: 'id', subject: 's', phoneNumber: phone, authenticatedAt: new Date(), opened: true,
     });`,
    2345,
  ],
  'anything that has all public members of a Session': [
    `declare const alike: { [Member in keyof Session]: Session[Member] };
     export const forged = tokens.issue(alike);`,
    2345,
  ],
  'a copy of a Session of somebody else': [
    `export const forged = tokens.issue({ ...session, subject: 'somebody else' });`,
    2345,
  ],
  'a Session that may have ended': [
    `export async function forged() { return tokens.issue(await sessions.find('subject', 'id')); }`,
    2345,
  ],
};

/** The compiler's complaints by snippet, from one compilation of all. */
function compile(snippets: Record<string, string>): Map<string, ts.Diagnostic[]> {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path));
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const files = new Map(
    Object.entries(snippets).map(([, code], i) => [join(__dirname, `snippet-${i}.ts`), IMPORTS + code]),
  );
  const host = ts.createCompilerHost(options);
  const disk = ts.createCompilerHost(options);
  host.readFile = (path) => files.get(path) ?? disk.readFile(path);
  host.fileExists = (path) => files.has(path) || disk.fileExists(path);
  host.getSourceFile = (path, version, ...rest) => {
    const code = files.get(path);
    return code === undefined
      ? disk.getSourceFile(path, version, ...rest)
      : ts.createSourceFile(path, code, version, true);
  };
  const program = ts.createProgram([...files.keys()], { ...options, noEmit: true }, host);
  return new Map(
    Object.keys(snippets).map((name, i) => {
      const file = program.getSourceFile([...files.keys()][i]!);
      if (file === undefined) throw new Error(`${name} was not compiled`);
      return [name, [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]];
    }),
  );
}

const said = ({ code, file, messageText }: ts.Diagnostic): string =>
  `TS${code} ${relative(ROOT, file?.fileName ?? '')}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`;

let diagnostics: Map<string, ts.Diagnostic[]>;
beforeAll(() => {
  const refused = Object.entries(REFUSED).map(([name, [code]]) => [name, code] as const);
  diagnostics = compile({ ...HONEST, ...Object.fromEntries(refused) });
}, 120_000);

describe('a token is issued for a verified phone number only, by the word of the compiler', () => {
  test.each(Object.keys(HONEST))('honest code for sessions and tokens compiles: %s', (name) => {
    expect(diagnostics.get(name)!.map(said)).toEqual([]);
  });

  test.each(Object.entries(REFUSED).map(([name, [, reason]]) => [name, reason] as const))(
    'code that would forge a login does not compile: %s (TS%i)',
    (name, reason) => {
      // Every complaint is the one that is meant: a typing error in the snippet would be a refusal, too.
      const found = diagnostics.get(name)!;
      expect(found.map(said)).not.toEqual([]);
      expect(new Set(found.map(({ code }) => code))).toEqual(new Set([reason]));
    },
  );
});
