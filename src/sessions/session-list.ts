/** Where a session was opened, as its owner may recognise it; no more of the client is kept. */
export interface Client {
  /** At most 40 characters. */
  device: string;
  /** What the client calls itself: its own words, so never in the place of `device`. At most 64 bytes. */
  deviceName?: string | undefined;
  /** Cut to /24 or /48. */
  address: string;
}

export interface ListedSession extends Client {
  id: string;
  createdAt: Date;
  lastUsedAt: Date;
  expiresAt: Date;
}

export interface ListedApp extends ListedSession {
  /** The id of the app's client. */
  client: string;
}

/** A session of the service's own client, with those of the apps that it logged in to. */
export interface SessionWithApps extends ListedSession {
  apps: ListedApp[];
}

/** A row of list.lua. */
export type SessionRow = [
  id: string,
  createdAt: number,
  lastUsedAt: number,
  expiresAt: number,
  device: string,
  address: string,
  deviceName: string,
  client: string,
  apps: SessionRow[],
];

export function listed(row: SessionRow): ListedSession {
  const [id, createdAt, lastUsedAt, expiresAt, device, address, deviceName] = row;
  return {
    id,
    createdAt: new Date(createdAt),
    lastUsedAt: new Date(lastUsedAt),
    expiresAt: new Date(expiresAt),
    device,
    ...(deviceName === '' ? {} : { deviceName }),
    address,
  };
}

export const listedApp = (row: SessionRow): ListedApp => ({ ...listed(row), client: row[7] });
