// Debian's buildah: builds and opens images without a daemon, in a store of its own that goes when the script ends.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { launch } from '../../scripts/children.mjs';
import { giveUp } from '../../scripts/project.mjs';

/** Buildah with its store inside the folder. */
export class Buildah {
  constructor(program, folder) {
    this.program = program;
    // vfs copies where other drivers mount: slower, and at home in every sandbox.
    this.global = ['--root', `${folder}/store`, '--runroot', `${folder}/run`, '--storage-driver', 'vfs'];
  }

  /** The output of the command; ends the script with the output when the command failed. */
  run(command, ...args) {
    const { status, stdout, stderr } = this.attempt(command, ...args);
    if (status !== 0) giveUp(`buildah ${command} failed:\n${stdout}${stderr}`);
    return stdout.trim();
  }

  attempt(command, ...args) {
    return spawnSync(this.program, [...this.global, command, ...args], {
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
    });
  }

  /** Builds a Dockerfile, and prints a line for each of its steps. */
  async build(...args) {
    const child = launch(this.program, [...this.global, 'build', ...args]);
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (/^(\[\d+\/\d+\] )?STEP /.test(line)) console.log(`  ${line}`);
    });
    const [status] = await once(child, 'close');
    if (status !== 0) giveUp(`buildah build failed:\n${child.printed}`);
  }

  /** The folder that holds the files of an image, in a container of its own. */
  open(image) {
    return this.run('mount', this.run('from', '--pull-never', image));
  }

  /** The configuration of an image: Docker's `Config`. */
  configOf(image) {
    return JSON.parse(this.run('inspect', '--type', 'image', image)).Docker.config;
  }
}
