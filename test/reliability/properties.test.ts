import { testProperties } from '../support/properties';

testProperties(1);
