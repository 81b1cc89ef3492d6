import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { Connections, type ConnectionBounds } from '../../src/http/connections';
import { until } from '../support/hang';

const BOUNDS: ConnectionBounds = { connections: 12, connectionsOfAddress: 6, unread: 8, unreadOfAddress: 4 };
const PUBLIC = '203.0.113.9';

let server: Server;
let connections: Connections;
let closed: string[];
let clients: Socket[];
/** The same connections as the server sees them. */
let accepted: Socket[];
/** The address that the next peers seem to have. */
let peer: string;

beforeEach(() => start(BOUNDS));
afterEach(stop);

async function start(bounds: ConnectionBounds): Promise<void> {
  closed = [];
  clients = [];
  accepted = [];
  peer = PUBLIC;
  server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    connections.busy(socket);
    const arrived = connections.read(socket);
    response.once('close', () => {
      arrived();
      connections.idle(socket);
    });
    request.resume().once('end', () => {
      arrived();
      response.end('done');
    });
  });
  server.on('connection', (socket: Socket) => {
    Object.defineProperty(socket, 'remoteAddress', { value: peer });
    accepted.push(socket);
  });
  connections = new Connections(server, bounds, (limit) => closed.push(limit));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
}

async function stop(): Promise<void> {
  for (const client of clients) client.destroy();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

/** One connection, which the server has accepted when this resolves. */
async function open(from = PUBLIC, bytes = ''): Promise<Socket> {
  peer = from;
  const connection = once(server, 'connection');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  clients.push(client);
  client.on('error', () => undefined);
  await connection;
  if (bytes) client.write(bytes);
  return client;
}
const half = (body = 'x'): string => `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n${body}`;
const unreadBecomes = (count: number): Promise<void> =>
  until(() => connections.unread === count, `${count} unread requests`);
const closes = (client: Socket): Promise<void> => until(() => client.closed, 'the end of a connection');
async function answer(client: Socket): Promise<string> {
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const [bytes] = (await once(client, 'data')) as [Buffer];
  return bytes.toString().split('\r\n', 1)[0]!;
}

it('a public address loses its longest idle connection when it opens one too many, and other addresses lose none', async () => {
  const other = await open('198.51.100.7');
  const own: Socket[] = [];
  for (let i = 0; i < BOUNDS.connectionsOfAddress; i++) own.push(await open());
  // The first one was used: the second is idle for longer.
  expect(await answer(own[0]!)).toBe('HTTP/1.1 200 OK');
  const latest = await open();
  await closes(own[1]!);
  expect(closed).toEqual(['connections']);
  for (const client of [other, latest, own[0]!, own[5]!])
    expect(await answer(client)).toBe('HTTP/1.1 200 OK');
});

it('one IPv6 /64 counts as one public address', async () => {
  const first = await open('2001:db8:1:2::1');
  for (let i = 0; i < BOUNDS.connectionsOfAddress; i++) await open(`2001:db8:1:2::${i + 2}`);
  await closes(first);
  expect(closed).toEqual(['connections']);
});

it('a private peer has the total bound only, and there the longest idle connection is closed first', async () => {
  const first = await open('10.0.0.7');
  for (let i = 1; i < BOUNDS.connections; i++) await open('10.0.0.7');
  expect(closed).toEqual([]);
  const latest = await open('203.0.113.1');
  await closes(first);
  expect(await answer(latest)).toBe('HTTP/1.1 200 OK');
});

it('a public address loses the connection whose body arrives most slowly when it has one unread body too many', async () => {
  const slow: Socket[] = [];
  for (let i = 0; i < BOUNDS.unreadOfAddress; i++) {
    slow.push(await open(PUBLIC, half()));
    await unreadBecomes(i + 1);
  }
  // All but the third one go on.
  for (const client of slow) if (client !== slow[2]) client.write('x'.repeat(50));
  await until(() => accepted.filter(({ bytesRead }) => bytesRead > half().length).length === slow.length - 1);
  const other = await open('198.51.100.7', half());
  await unreadBecomes(BOUNDS.unreadOfAddress + 1);
  expect(closed).toEqual([]);
  const honest = await open(PUBLIC, half());
  await closes(slow[2]!);
  expect(closed).toEqual(['unread']);
  honest.write('x'.repeat(99));
  expect(((await once(honest, 'data')) as [Buffer])[0].toString()).toMatch(/^HTTP\/1.1 200/);
  expect(other.closed).toBe(false);
});

it('private peers share the total bound of unread bodies, and the slowest one is closed first', async () => {
  const slow: Socket[] = [];
  for (let i = 0; i < BOUNDS.unread; i++) {
    slow.push(await open('127.0.0.1', half()));
    await unreadBecomes(i + 1);
  }
  for (const client of slow.slice(1)) client.write('x'.repeat(50));
  await until(() => accepted.filter(({ bytesRead }) => bytesRead > half().length).length === slow.length - 1);
  await open('10.0.0.9', half());
  await closes(slow[0]!);
  expect(closed).toEqual(['unread']);
});

it('where no connection is idle, the slowest reader makes room for a new connection', async () => {
  await stop();
  await start({ ...BOUNDS, connections: 3 });
  const readers: Socket[] = [];
  for (let i = 1; i <= 3; i++) {
    readers.push(await open('127.0.0.1', half()));
    await unreadBecomes(i);
  }
  for (const client of readers.slice(1)) client.write('x'.repeat(50));
  await until(() => accepted.filter(({ bytesRead }) => bytesRead > half().length).length === 2);
  const latest = await open('127.0.0.1');
  await closes(readers[0]!);
  expect(await answer(latest)).toBe('HTTP/1.1 200 OK');
});
