import { HttpService } from '@nestjs/axios';
import { StartMessagingClient, type StartMessagingOptions } from './startmessaging.client';

/** A client outside of Nest, for a tool. Close it at the end. */
export function standaloneClient(options: StartMessagingOptions): StartMessagingClient {
  return new StartMessagingClient(new HttpService(), options);
}
