import 'reflect-metadata';
import { doctor } from './doctor';

doctor({
  arguments: process.argv.slice(2),
  print: (line) => {
    console.log(line);
  },
}).then(
  (code) => process.exit(code),
  () => {
    console.error('The doctor failed.');
    process.exit(1);
  },
);
