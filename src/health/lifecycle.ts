import { Injectable } from '@nestjs/common';

/** Whether this process is on its way out. Readiness says so before the server stops accepting. */
@Injectable()
export class Lifecycle {
  #ending = false;

  get ending(): boolean {
    return this.#ending;
  }

  end(): void {
    this.#ending = true;
  }
}
