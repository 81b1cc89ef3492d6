import { testProperties } from '../support/properties';

// Few inputs: test/reliability/properties.test.ts draws many.
testProperties(0.15);
